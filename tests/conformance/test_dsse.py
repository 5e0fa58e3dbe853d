"""DSSE as its specification's own test vectors have it, and as two other programs read it."""

from __future__ import annotations

import base64
import json
import subprocess
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError

from kgate_core.bundle import Bundle, pae
from kgate_core.keys import Algorithm, PublicKey
from kgate_signer.devices import to_library_key
from kgate_signer.keys import FileKey
from tests.trustkit import make_trust, manifest_of

if TYPE_CHECKING:
    from pathlib import Path

# https://github.com/secure-systems-lab/dsse/blob/v1.0.2/protocol.md, "Test Vectors".
TYPE = "http://example.com/HelloWorld"
BODY = b"hello world"
X = 46950820868899156662930047687818585632848591499744589407958293238635476079160
Y = 5640078356564379163099075877009565129882514886557779369047442380624545832820
SIGNATURE = (
    "A3JqsQGtVsJ2O2xqrI5IcnXip5GToJ3F+FnZ+O88SjtR6rDAajabZKciJTfUiHqJPcIAriEGAHTVeCUjW2JIZA=="
)


def test_the_bytes_to_sign_are_those_of_the_specification() -> None:
    assert pae(TYPE, BODY) == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"


@pytest.mark.parametrize(
    ("kind", "body", "expected"),
    [
        ("", b"", b"DSSEv1 0  0 "),
        ("ü", b"\x00\xff", b"DSSEv1 2 \xc3\xbc 2 \x00\xff"),
        ("a 1 b", b"1 a", b"DSSEv1 5 a 1 b 3 1 a"),
    ],
)
def test_lengths_count_bytes_and_keep_fields_apart(kind: str, body: bytes, expected: bytes) -> None:
    assert pae(kind, body) == expected


def test_the_signature_of_the_specification_verifies() -> None:
    public = ec.EllipticCurvePublicNumbers(X, Y, ec.SECP256R1()).public_key()
    key = PublicKey.from_der(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    raw = base64.b64decode(SIGNATURE)
    # The specification writes r and s side by side; signatures here are DER.
    der = encode_dss_signature(int.from_bytes(raw[:32]), int.from_bytes(raw[32:]))
    assert key.verify(der, pae(TYPE, BODY))
    assert not key.verify(der, pae(TYPE, b"hello worle"))


@pytest.mark.parametrize("algorithm", Algorithm)
def test_securesystemslib_accepts_what_is_signed_here(algorithm: Algorithm) -> None:
    key = FileKey.generate(algorithm)
    document = json.loads(make_trust().bundle(manifest_of(), key))["dsseEnvelope"]
    public = to_library_key(key.public_key())
    # Its threshold counts keys whose id equals the signature's: ours is the hint.
    public.keyid = key.public_key().hint
    envelope = Envelope.from_dict(json.loads(json.dumps(document)))
    assert set(envelope.verify([public], 1)) == {key.public_key().hint}
    document["payload"] = base64.b64encode(b"{}").decode()
    with pytest.raises(VerificationError):
        Envelope.from_dict(document).verify([public], 1)


@pytest.mark.parametrize("algorithm", Algorithm)
def test_openssl_accepts_what_is_signed_here(algorithm: Algorithm, tmp_path: Path) -> None:
    key = FileKey.generate(algorithm)
    envelope = Bundle.parse(make_trust().bundle(manifest_of(), key)).envelope
    public, signature, message = (tmp_path / name for name in ("public.pem", "sig", "pae"))
    public.write_text(key.public_key().pem)
    signature.write_bytes(envelope.signature)
    message.write_bytes(pae(envelope.payload_type, envelope.payload))

    def answer() -> int:
        if algorithm is Algorithm.ECDSA_P256:
            command = f"dgst -sha256 -verify {public} -signature {signature} {message}"
        else:
            command = f"pkeyutl -verify -pubin -inkey {public} -rawin -sigfile {signature}"
            command += f" -in {message}"
        return subprocess.run(["openssl", *command.split()], check=False).returncode

    assert answer() == 0
    message.write_bytes(message.read_bytes()[:-1])
    assert answer() != 0
