"""Every reader of signed or untrusted documents: an answer or our own error, whatever comes in."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kgate_core import strictjson
from kgate_core.bundle import Bundle, Envelope, pae
from kgate_core.errors import KgateError
from kgate_core.evidence import Decision, ScanReport
from kgate_core.keys import PublicKey
from kgate_core.lock import Lock
from kgate_core.manifest import Manifest
from kgate_core.statement import PAYLOAD_TYPE, Statement
from kgate_core.timestamp import signed_before
from kgate_core.tuf import canonical
from kgate_core.verify import Expected, Rejected, Verified, verify
from kgate_core.vsa import Vsa
from kgate_signer.trustwriter import TrustSet
from tests.steady import STEADY
from tests.trustkit import EXPERIMENTAL, KERNEL, NOW, make_trust, manifest_of
from tests.unit.core.test_evidence import DECISION, REPORT
from tests.unit.core.test_lock import RELU
from tests.unit.core.test_timestamp import AUTHORITY, SIGNATURE, response

if TYPE_CHECKING:
    from collections.abc import Callable

KIT = make_trust()
MANIFEST = manifest_of()
BUNDLE = KIT.bundle(MANIFEST)
PAYLOAD = Bundle.parse(BUNDLE).envelope.payload
TRUSTED = KIT.trusted()

odd = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2**54),
    st.floats(),
    st.text(max_size=20),
    st.just([]),
    st.just({}),
    st.lists(st.just("x"), max_size=3),
    st.sampled_from(
        ["sha256:" + "0" * 64, "0" * 64, "2026-01-01T00:00:00Z", "9999-12-31T23:59:59Z"]
    ),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every value inside a document."""
    found = [path] if path else []
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, inner in items:
        found += places(inner, (*path, key))
    return found


@st.composite
def mutations(draw: st.DrawFn, data: bytes) -> bytes:
    """Return a document with up to three of its values replaced, removed or doubled."""
    document = json.loads(data)
    for _ in range(draw(st.integers(1, 3))):
        known = places(document)
        if not known:
            break
        *parents, last = draw(st.sampled_from(known))
        place = document
        for key in parents:
            place = place[key]
        match draw(st.sampled_from(["replace", "remove", "add"])):
            case "replace":
                place[last] = draw(odd)
            case "remove":
                del place[last]
            case _ if isinstance(place, dict):
                place[draw(st.text(max_size=5))] = draw(odd)
            case _:
                place.append(place[last])
    return json.dumps(document).encode()


def decision_of(data: bytes) -> Decision:
    return Decision.from_json(strictjson.loads(data, what="x"))


def vsa_of(data: bytes) -> Vsa:
    return Vsa.from_predicate(Statement.parse(data).predicate)


READERS: dict[str, tuple[Callable[[bytes], object], bytes]] = {
    "manifest": (Manifest.parse, MANIFEST.canonical),
    "bundle": (Bundle.parse, BUNDLE),
    "statement": (Statement.parse, PAYLOAD),
    "vsa": (vsa_of, PAYLOAD),
    "lock": (Lock.parse, Lock((RELU,)).to_bytes()),
    "scan report": (ScanReport.from_bytes, REPORT.to_bytes()),
    "decision": (decision_of, json.dumps(DECISION.to_json()).encode()),
}


@pytest.mark.parametrize("name", READERS)
@given(data=st.data())
@settings(STEADY, max_examples=150)
def test_a_mutated_document_is_read_or_refused(name: str, data: st.DataObject) -> None:
    read, good = READERS[name]
    mutated = data.draw(mutations(good))
    with suppress(KgateError):
        assert read(mutated) is not None


@pytest.mark.parametrize("name", READERS)
@given(noise=st.binary(max_size=200))
@settings(STEADY, max_examples=50)
def test_noise_is_refused(name: str, noise: bytes) -> None:
    read, _ = READERS[name]
    with pytest.raises(KgateError):
        read(noise)


@given(mutations(PAYLOAD), st.integers(0, 10))
@settings(STEADY, max_examples=200)
def test_a_mutated_statement_signed_by_the_right_key_gets_a_verdict(
    payload: bytes, copies: int
) -> None:
    hint = KIT.admit.public_key().hint
    envelope = Envelope(payload, PAYLOAD_TYPE, KIT.admit.sign(pae(PAYLOAD_TYPE, payload)), hint)
    bundles = [Bundle(envelope, hint).to_bytes()] * copies
    expected = Expected(KERNEL.variant, EXPERIMENTAL, KERNEL.repo, KERNEL.revision)
    verdict = verify(expected, MANIFEST, bundles, TRUSTED, now=NOW)
    assert isinstance(verdict, Verified | Rejected)
    if isinstance(verdict, Verified):
        # Whatever was mutated, it was nothing that is compared.
        assert verdict.vsa.kernel == KERNEL
        assert verdict.vsa.manifest == MANIFEST.digest


@pytest.mark.parametrize("name", ["1.root.json", "timestamp.json", "snapshot.json", "targets.json"])
@given(data=st.data())
@settings(STEADY, max_examples=100)
def test_mutated_trust_metadata_is_refused_even_if_signed(name: str, data: st.DataObject) -> None:
    # Signed anew by the right key: only its content can be at fault.
    mutated = json.loads(data.draw(mutations(KIT.trust.files[name])))
    key = KIT.timestamp if name == "timestamp.json" else KIT.root
    if isinstance(mutated, dict) and isinstance(mutated.get("signed"), dict):
        try:
            signature = key.sign(canonical(mutated["signed"])).hex()
        except KgateError:
            return  # a float: nobody can sign that
        mutated["signatures"] = [{"keyid": key.public_key().keyid, "sig": signature}]
    trust = TrustSet.from_files(KIT.trust.files | {name: json.dumps(mutated).encode()})
    with suppress(KgateError):
        assert trust.load(NOW).expires > NOW


@STEADY
@given(st.binary(max_size=120))
def test_noise_is_no_key(noise: bytes) -> None:
    for read in (PublicKey.from_der, PublicKey.from_pem, PublicKey.from_ed25519_raw):
        with suppress(KgateError):
            assert read(noise).der


@given(st.integers(0, 10_000), st.binary(min_size=1, max_size=8))
@settings(STEADY, max_examples=300)
def test_a_damaged_timestamp_dates_nothing_else(place: int, noise: bytes) -> None:
    good = response()
    at = place % len(good)
    damaged = good[:at] + noise + good[at + len(noise) :]
    assert signed_before([damaged], SIGNATURE, [AUTHORITY]) in {None, NOW}
