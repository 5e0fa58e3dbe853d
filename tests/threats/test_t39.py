"""T39: what two readers take differently: doubled keys and names, colliding paths, encodings."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from typing import Any

import pytest

from kgate_core import strictjson
from kgate_core.bundle import Bundle, Envelope, pae
from kgate_core.digest import Digest
from kgate_core.errors import InvalidInput
from kgate_core.manifest import FileEntry, Manifest
from kgate_core.statement import MAX_SUBJECTS, PAYLOAD_TYPE
from kgate_core.verify import Expected, Reason, Rejected, Verified, verify
from tests.trustkit import EXPERIMENTAL, KERNEL, NOW, make_trust, manifest_of

KIT = make_trust()
MANIFEST = manifest_of()
BUNDLE = KIT.bundle(MANIFEST)
PAYLOAD = Bundle.parse(BUNDLE).envelope.payload
EXPECTED = Expected(KERNEL.variant, EXPERIMENTAL, KERNEL.repo, KERNEL.revision)


def refusal(bundle: bytes) -> Rejected:
    verdict = verify(EXPECTED, MANIFEST, [bundle], KIT.trusted(), now=NOW)
    assert isinstance(verdict, Rejected)
    assert verdict.reason is Reason.MALFORMED
    return verdict


def signed(payload: bytes) -> bytes:
    """Return a bundle over hostile bytes by the trusted key itself."""
    hint = KIT.admit.public_key().hint
    signature = KIT.admit.sign(pae(PAYLOAD_TYPE, payload))
    return Bundle(Envelope(payload, PAYLOAD_TYPE, signature, hint), hint).to_bytes()


def test_a_doubled_key_anywhere_in_the_bundle_is_refused() -> None:
    text = BUNDLE.decode()
    for key in re.findall(r'"(\w+)":', text):
        doubled = text.replace(f'"{key}":', f'"{key}":null,"{key}":', 1)
        assert "stands twice" in refusal(doubled.encode()).message


def test_a_doubled_key_anywhere_in_a_signed_statement_is_refused() -> None:
    text = PAYLOAD.decode()
    for key in set(re.findall(r'"([\w:./]+)":', text)):
        doubled = text.replace(f'"{key}":', f'"{key}":null,"{key}":', 1)
        assert "stands twice" in refusal(signed(doubled.encode())).message
        escaped = text.replace(f'"{key}":', f'"{key}":null,"\\u{ord(key[0]):04x}{key[1:]}":', 1)
        assert "stands twice" in refusal(signed(escaped.encode())).message


def with_subjects(subjects: list[Any]) -> bytes:
    return signed(strictjson.dumps(json.loads(PAYLOAD) | {"subject": subjects}))


def test_a_doubled_subject_name_is_refused() -> None:
    subjects = json.loads(PAYLOAD)["subject"]
    evil = {"name": subjects[1]["name"], "digest": {"sha256": "0" * 64}}
    assert "same name" in refusal(with_subjects([*subjects, evil])).message


def test_more_subjects_than_other_verifiers_read_are_refused() -> None:
    subjects = [{"name": str(n), "digest": {"sha256": "0" * 64}} for n in range(MAX_SUBJECTS + 1)]
    assert f"{MAX_SUBJECTS + 1} subjects" in refusal(with_subjects(subjects)).message


def test_a_bundle_over_eight_megabytes_is_refused_unparsed() -> None:
    padded = BUNDLE[:-1] + b" " * (8 * 1024 * 1024 - len(BUNDLE)) + b"}"
    assert isinstance(verify(EXPECTED, MANIFEST, [padded], KIT.trusted(), now=NOW), Verified)
    assert "more than the 8388608 allowed" in refusal(padded[:-1] + b" }").message


@pytest.mark.parametrize("field", ["payload", "sig"])
@pytest.mark.parametrize(
    "spell",
    [
        lambda text: text.rstrip("="),
        lambda text: text + "\n",
        lambda text: text + "====",
        lambda text: " " + text,
        lambda text: text[:4] + "\r\n" + text[4:],
        # The last digit before `=` has two spare bits, which lenient decoders drop.
        lambda text: text.removesuffix("=")[:-1] + chr(ord(text[-2]) + 1) + "=",
    ],
    ids=["unpadded", "newline", "overpadded", "space", "wrapped", "spare bits"],
)
def test_another_spelling_of_the_same_base64_is_refused(field: str, spell: Any) -> None:
    envelope = Bundle.parse(BUNDLE).envelope
    # Lengths that leave exactly one `=`; what the bytes say does not matter here.
    two_over = replace(
        envelope,
        payload=envelope.payload + b" " * ((2 - len(envelope.payload)) % 3),
        signature=envelope.signature + b" " * ((2 - len(envelope.signature)) % 3),
    )
    document = json.loads(Bundle(two_over, envelope.keyid).to_bytes())
    place = document["dsseEnvelope"]
    if field == "sig":
        place = place["signatures"][0]
    lenient = base64.b64decode(place[field])
    place[field] = spell(place[field])
    assert base64.b64decode(place[field] + "==") == lenient  # one meaning, two spellings
    assert "base64" in refusal(strictjson.dumps(document)).message


@pytest.mark.parametrize(
    "names",
    [("Ops.so", "ops.so"), ("\uff4b.py", "k.py"), ("\ufb00.py", "ff.py"), ("lib", "lib/x.so")],
)
def test_paths_that_collide_on_some_file_system_make_no_manifest(names: tuple[str, str]) -> None:
    with pytest.raises(InvalidInput, match=r"collide|is a file"):
        Manifest.of(FileEntry(name, 0, Digest.of(b"")) for name in names)
    files = [{"digest": str(Digest.of(b"")), "path": name, "size": 0} for name in sorted(names)]
    with pytest.raises(InvalidInput, match=r"collide|is a file"):
        Manifest.parse(strictjson.dumps({"files": files, "schema": "kgate.dev/manifest/v1"}))


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data.replace(b'"PASSED"', b"NaN"),
        lambda data: data.replace(b'"PASSED"', b"1.0"),
        lambda data: data.replace(b"policy/baseline", b"policy/\\ud800"),
        lambda data: data.replace(b"policy/baseline", b"policy/\xff"),
        lambda data: data.replace(b'"PASSED"', b"[" * 100_000),
        lambda data: data[:-1],
        lambda data: data + data,
    ],
)
def test_what_readers_disagree_about_is_refused_even_if_signed(damage: Any) -> None:
    refusal(signed(damage(PAYLOAD)))
