"""npm's `@sigstore/verify` accepts key-signed bundles, offline and without a log."""

from __future__ import annotations

import base64
import json
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from kgate_core.keys import Algorithm, PublicKey
from kgate_signer.keys import FileKey
from kgate_signer.predicates import vsa_statement
from kgate_signer.sign import sign_statement
from kgate_signer.timestamps import HttpStamper
from tests.interop import toolbox
from tests.trustkit import make_trust, manifest_of
from tests.tsakit import LocalAuthority

pytestmark = pytest.mark.matrix

PACKAGES = ("@sigstore/verify@4.1.3", "@sigstore/bundle@4.0.0", "@sigstore/core@4.0.1")
KIT = make_trust()
SCRIPT = Path(__file__).with_name("verify_keyed.js")


def peer(bundle: bytes, public: PublicKey, **more: Any) -> dict[str, Any]:
    """Return what the other implementation says about a bundle."""
    node, folder = toolbox.node(*PACKAGES)
    question = {
        "bundle": json.loads(bundle),
        "key": public.pem,
        "hint": public.hint,
    }
    done = subprocess.run(
        [node, SCRIPT],
        input=json.dumps(question | more),
        env={"NODE_PATH": str(folder / "node_modules")},
        capture_output=True,
        text=True,
        check=True,
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.mark.parametrize("algorithm", Algorithm)
def test_it_accepts_what_is_signed_here(algorithm: Algorithm) -> None:
    key = FileKey.generate(algorithm)
    assert peer(KIT.bundle(manifest_of(), key), key.public_key()) == {"ok": True}


def test_it_refuses_a_changed_payload() -> None:
    document = json.loads(KIT.bundle(manifest_of()))
    envelope = document["dsseEnvelope"]
    payload = base64.b64decode(envelope["payload"]).replace(b"relu", b"gelu")
    envelope["payload"] = base64.b64encode(payload).decode()
    answer = peer(json.dumps(document).encode(), KIT.admit.public_key())
    assert (answer["ok"], answer["code"]) == (False, "SIGNATURE_ERROR")


def test_it_refuses_another_key_under_the_same_hint() -> None:
    bundle = KIT.bundle(manifest_of())
    other = FileKey.generate().public_key()
    answer = peer(bundle, other, hint=KIT.admit.public_key().hint)
    assert (answer["ok"], answer["code"]) == (False, "SIGNATURE_ERROR")


def test_it_asks_for_the_key_by_our_hint() -> None:
    answer = peer(KIT.bundle(manifest_of()), KIT.admit.public_key(), hint="another")
    assert answer["ok"] is False
    assert f"unknown key {KIT.admit.public_key().hint}" in answer["message"]


def test_it_reads_our_timestamps_and_holds_them_against_the_keys_time(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    authority = LocalAuthority(tmp_path, digits=0)
    manifest = manifest_of()
    with authority.served() as url:
        stamper = HttpStamper(url, authority.pinned(now))
        bundle = sign_statement(
            vsa_statement(manifest, KIT.vsa(manifest)),
            KIT.admit,
            stamp=lambda data: stamper.stamp(data, now),
        )
    chain = [base64.b64encode(certificate).decode() for certificate in authority.chain]
    public = KIT.admit.public_key()
    for start, end, ok in ((-1, 1, True), (-2, -1, False)):
        window = [(now + timedelta(days=days)).isoformat() for days in (start, end)]
        answer = peer(bundle, public, authority=chain, validFor=window)
        assert answer["ok"] is ok
        assert ok or answer["code"] == "PUBLIC_KEY_ERROR"
    # Without a timestamp there is nothing to hold the key's time against.
    bare = peer(KIT.bundle(manifest), public, authority=chain)
    assert (bare["ok"], bare["code"]) == (False, "TIMESTAMP_ERROR")
