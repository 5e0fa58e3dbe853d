from __future__ import annotations

import base64
import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from kgate_core.errors import InvalidInput
from kgate_core.keys import Algorithm, PublicKey
from kgate_signer.keys import FileKey

BOTH = [FileKey.generate(algorithm) for algorithm in Algorithm]


def spki(key: object) -> tuple[bytes, bytes]:
    assert isinstance(key, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey)
    form = PublicFormat.SubjectPublicKeyInfo
    return key.public_bytes(Encoding.DER, form), key.public_bytes(Encoding.PEM, form)


@pytest.mark.parametrize("key", BOTH)
def test_a_key_is_named_by_the_sha256_of_its_der(key: FileKey) -> None:
    public = key.public_key()
    assert public.keyid == hashlib.sha256(public.der).hexdigest()
    assert base64.b64decode(public.hint).hex() == public.keyid
    assert PublicKey.from_pem(public.pem) == PublicKey.from_pem(public.pem.encode()) == public
    assert PublicKey.from_der(public.der) == public


@pytest.mark.parametrize("key", BOTH)
def test_only_the_very_bytes_and_the_very_key_verify(key: FileKey) -> None:
    public, signature = key.public_key(), key.sign(b"message")
    assert public.verify(signature, b"message")
    assert not public.verify(signature, b"massage")
    assert not public.verify(signature[:-1], b"message")
    assert not public.verify(b"", b"message")
    for other in BOTH:
        if other is not key:
            assert not other.public_key().verify(signature, b"message")


def test_a_key_that_is_not_of_its_algorithm_verifies_nothing() -> None:
    key = BOTH[0]
    public, signature = key.public_key(), key.sign(b"message")
    assert public.verify(signature, b"message")
    mislabelled = PublicKey(Algorithm.ED25519, public.der)
    assert not mislabelled.verify(signature, b"message")


def test_an_ed25519_key_is_read_from_its_raw_bytes() -> None:
    public = FileKey.generate(Algorithm.ED25519).public_key()
    assert PublicKey.from_ed25519_raw(public.der[-32:]) == public
    with pytest.raises(InvalidInput, match="not an Ed25519"):
        PublicKey.from_ed25519_raw(b"short")


@pytest.mark.parametrize("key", BOTH)
def test_what_is_read_without_the_library_is_what_the_library_reads_and_writes(
    key: FileKey,
) -> None:
    public = key.public_key()
    assert spki(load_der_public_key(public.der)) == (public.der, public.pem.encode())
    # Other spellings of the same text are left to the library.
    wide = public.pem.replace("\n", "\r\n")
    commented = "a key of the bank\n" + public.pem
    assert PublicKey.from_pem(wide) == PublicKey.from_pem(commented) == public


@pytest.mark.parametrize("key", BOTH)
def test_a_key_with_something_behind_it_is_none(key: FileKey) -> None:
    der = key.public_key().der
    for bad in (der + b"\0", der[:-1]):
        with pytest.raises(InvalidInput, match="not a DER"):
            PublicKey.from_der(bad)
    text = key.public_key().pem.replace("\n-----END", "\n!\n-----END")
    with pytest.raises(InvalidInput, match="not a PEM"):
        PublicKey.from_pem(text)


def test_a_point_that_is_not_on_the_curve_is_no_key() -> None:
    der = FileKey.generate().public_key().der
    off = der[:-32] + bytes(32)
    pem = b"-----BEGIN PUBLIC KEY-----\n" + base64.b64encode(off) + b"\n-----END PUBLIC KEY-----\n"
    with pytest.raises(InvalidInput, match="not a DER"):
        PublicKey.from_der(off)
    with pytest.raises(InvalidInput, match="not a PEM"):
        PublicKey.from_pem(pem)
    assert not PublicKey(Algorithm.ED25519, b"no key").verify(b"", b"")


def test_a_point_in_compressed_form_is_the_same_key() -> None:
    # Two spellings of one key would be two ids for one holder.
    private = ec.generate_private_key(ec.SECP256R1())
    der, _ = spki(private.public_key())
    point = private.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    # The SPKI header for a 33-byte point: lengths differ from the uncompressed form's.
    header = bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200")
    assert PublicKey.from_der(header + point).der == der


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP384R1()).public_key(),
        ec.generate_private_key(ec.SECP256K1()).public_key(),
        rsa.generate_private_key(65537, 2048).public_key(),
    ],
    ids=["P-384", "secp256k1", "RSA"],
)
def test_other_kinds_of_keys_are_refused(key: object) -> None:
    der, pem = spki(key)
    for read, data in ((PublicKey.from_der, der), (PublicKey.from_pem, pem)):
        with pytest.raises(InvalidInput, match="not supported") as caught:
            read(data)
        assert "P-256" in caught.value.hint


@pytest.mark.parametrize("data", [b"", b"\x30\x00", b"-----BEGIN PUBLIC KEY-----\n", "\ud800"])
def test_what_is_no_key_is_refused(data: bytes | str) -> None:
    with pytest.raises(InvalidInput, match="not a PEM"):
        PublicKey.from_pem(data)
    with pytest.raises(InvalidInput, match="not a DER"):
        PublicKey.from_der(data if isinstance(data, bytes) else b"x")
