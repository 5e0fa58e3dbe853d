"""T38: an algorithm or key type named by the bundle differs from the trust root's."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hmac import HMAC

from kgate_core import strictjson
from kgate_core.bundle import Bundle, Envelope
from kgate_core.keys import Algorithm, PublicKey
from kgate_core.verify import Expected, Reason, Rejected, Verified, verify
from kgate_signer.keys import FileKey
from tests.trustkit import EXPERIMENTAL, KERNEL, NOW, make_trust, manifest_of

KIT = make_trust()
MANIFEST = manifest_of()
BUNDLE = KIT.bundle(MANIFEST)
ENVELOPE = Bundle.parse(BUNDLE).envelope
EXPECTED = Expected(KERNEL.variant, EXPERIMENTAL, KERNEL.repo, KERNEL.revision)


def reason(bundle: bytes) -> Reason:
    verdict = verify(EXPECTED, MANIFEST, [bundle], KIT.trusted(), now=NOW)
    assert isinstance(verdict, Rejected)
    return verdict.reason


def test_the_untouched_bundle_is_verified() -> None:
    assert isinstance(verify(EXPECTED, MANIFEST, [BUNDLE], KIT.trusted(), now=NOW), Verified)


@pytest.mark.parametrize(
    ("place", "field", "value"),
    [
        ("signature", "alg", "none"),
        ("signature", "alg", "HS256"),
        ("envelope", "alg", "Ed25519"),
        ("envelope", "hashAlgorithm", "MD5"),
        ("publicKey", "keyDetails", "PKIX_ED25519"),
        ("publicKey", "rawBytes", base64.b64encode(KIT.admit.public_key().der).decode()),
        ("material", "x509CertificateChain", {"certificates": []}),
    ],
)
def test_a_bundle_that_names_an_algorithm_or_brings_a_key_chooses_nothing(
    place: str, field: str, value: Any
) -> None:
    document = json.loads(BUNDLE)
    material = document["verificationMaterial"]
    places = {
        "signature": document["dsseEnvelope"]["signatures"][0],
        "envelope": document["dsseEnvelope"],
        "publicKey": material["publicKey"],
        "material": material,
    }
    places[place][field] = value
    # Refused whole, although the signature itself is the right one.
    assert reason(strictjson.dumps(document)) is Reason.MALFORMED


def test_a_signature_of_another_key_type_under_the_trusted_hint_is_bad() -> None:
    for attacker in (FileKey.generate(Algorithm.ED25519), FileKey.generate()):
        forged = replace(ENVELOPE, signature=attacker.sign(ENVELOPE.signed_bytes))
        assert reason(Bundle(forged, ENVELOPE.keyid).to_bytes()) is Reason.BAD_SIGNATURE


def test_a_mac_keyed_with_the_public_key_is_no_signature() -> None:
    # The classic confusion: the verifier's public key taken as a shared secret.
    for secret in (KIT.admit.public_key().der, KIT.admit.public_key().pem.encode()):
        mac = HMAC(secret, hashes.SHA256())
        mac.update(ENVELOPE.signed_bytes)
        forged = replace(ENVELOPE, signature=mac.finalize())
        assert reason(Bundle(forged, ENVELOPE.keyid).to_bytes()) is Reason.BAD_SIGNATURE


def test_other_encodings_and_weaker_hashes_of_the_right_key_are_bad() -> None:
    r, s = decode_dss_signature(ENVELOPE.signature)
    raw = r.to_bytes(32) + s.to_bytes(32)
    private = KIT.admit._private
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    sha1 = private.sign(ENVELOPE.signed_bytes, ec.ECDSA(hashes.SHA1()))
    over_payload = KIT.admit.sign(ENVELOPE.payload)  # not over the PAE
    for signature in (raw, sha1, over_payload):
        forged = replace(ENVELOPE, signature=signature)
        assert reason(Bundle(forged, ENVELOPE.keyid).to_bytes()) is Reason.BAD_SIGNATURE


def test_the_payload_type_is_signed_and_fixed() -> None:
    for kind in ("application/vnd.in-toto+json ", "text/plain", ""):
        relabelled = replace(ENVELOPE, payload_type=kind)
        assert reason(Bundle(relabelled, ENVELOPE.keyid).to_bytes()) is Reason.MALFORMED


def test_the_algorithm_of_the_trust_root_counts_not_that_of_the_key_bytes() -> None:
    hint = KIT.admit.public_key().hint
    trusted = KIT.trusted()
    mislabelled = replace(
        trusted.keys[hint], public=PublicKey(Algorithm.ED25519, KIT.admit.public_key().der)
    )
    verdict = verify(
        EXPECTED, MANIFEST, [BUNDLE], replace(trusted, keys={hint: mislabelled}), now=NOW
    )
    assert isinstance(verdict, Rejected)
    assert verdict.reason is Reason.BAD_SIGNATURE


def test_a_hint_that_differs_between_its_two_places_is_refused() -> None:
    envelope = Envelope(ENVELOPE.payload, ENVELOPE.payload_type, ENVELOPE.signature, "x")
    assert reason(Bundle(envelope, ENVELOPE.keyid).to_bytes()) is Reason.MALFORMED
