from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from kgate_core.errors import InvalidInput
from kgate_core.timestamp import MAX_RESPONSE, Authority, read_response, signed_before
from kgate_signer import der
from tests.trustkit import NOW

SIGNATURE = b"a signature"
DAY = timedelta(days=1)
SHA256 = bytes.fromhex("0609608648016503040201")
SHA384 = bytes.fromhex("0609608648016503040202")
MD5 = bytes.fromhex("06082a864886f70d0205")
SIGNED_DATA = bytes.fromhex("06092a864886f70d010702")
TST_INFO = bytes.fromhex("060b2a864886f70d0109100104")
CONTENT_TYPE = bytes.fromhex("06092a864886f70d010903")
MESSAGE_DIGEST = bytes.fromhex("06092a864886f70d010904")
POLICY = bytes.fromhex("06032a0304")
EMPTY = der.sequence(POLICY)
KEY = ec.generate_private_key(ec.SECP256R1())


def octets(data: bytes) -> bytes:
    return der.value(der.OCTETS, data)


def authority_of(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey = KEY) -> Authority:
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return Authority("tsa.test", pem.decode(), NOW - DAY, NOW + DAY)


AUTHORITY = authority_of()


def info(
    message: bytes = SIGNATURE, time: bytes = b"20261121120000Z", oid: bytes = SHA256
) -> bytes:
    imprint = der.sequence(der.sequence(oid, der.NULL), octets(hashlib.sha256(message).digest()))
    return der.sequence(
        der.integer(1), POLICY, imprint, der.integer(7), der.value(0x18, time), der.TRUE
    )


def attribute(oid: bytes, value: bytes) -> bytes:
    return der.sequence(oid, der.value(0x31, value))


def attributes_for(statement: bytes, kind: bytes = TST_INFO) -> bytes:
    return attribute(CONTENT_TYPE, kind) + attribute(
        MESSAGE_DIGEST, octets(hashlib.sha256(statement).digest())
    )


def response(
    statement: bytes | None = None,
    *,
    attributes: bytes | None = None,
    status: int = 0,
    outer: bytes = SIGNED_DATA,
    inner: bytes = TST_INFO,
    algorithm: bytes = SHA256,
    tag: int = 0xA0,
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey = KEY,
) -> bytes:
    """Return a response as an authority would build it, or with one thing wrong."""
    statement = info() if statement is None else statement
    attributes = attributes_for(statement) if attributes is None else attributes
    signed = der.value(0x31, attributes)
    if isinstance(key, rsa.RSAPrivateKey):
        signature = key.sign(signed, padding.PKCS1v15(), hashes.SHA256())
    else:
        signature = key.sign(signed, ec.ECDSA(hashes.SHA256()))
    signer = der.sequence(
        der.integer(1), EMPTY, der.sequence(algorithm, der.NULL), der.value(tag, attributes),
        EMPTY, octets(signature),
    )  # fmt: skip
    content = der.sequence(
        der.integer(3),
        der.value(0x31, der.sequence(algorithm)),
        der.sequence(inner, der.value(0xA0, octets(statement))),
        der.value(0x31, signer),
    )
    token = der.sequence(outer, der.value(0xA0, content))
    return der.sequence(der.sequence(der.integer(status)), token)


@pytest.mark.parametrize(
    "key",
    [KEY, ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 2048)],
    ids=["P-256", "P-384", "RSA"],
)
@pytest.mark.parametrize("status", [0, 1])
def test_a_granted_timestamp_by_the_pinned_key_is_read(
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, status: int
) -> None:
    granted = response(key=key, status=status)
    assert read_response(granted, SIGNATURE, authority_of(key)) == NOW
    with pytest.raises(InvalidInput, match=r"is not signed by tsa\.test"):
        read_response(granted, SIGNATURE, authority_of(rsa.generate_private_key(65537, 2048)))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (response(info(b"another signature")), "about another signature"),
        (response(info(oid=MD5)), "digest algorithm 1.2.840.113549.2.5"),
        (response(info(oid=SHA384)), "about another signature"),
        (response(info(time=b"20261121120000")), "not a time in UTC"),
        (response(status=2), "granted nothing"),
        (der.sequence(der.sequence(der.integer(0))), "granted nothing"),
        (response(outer=TST_INFO), "no signed data"),
        (response(inner=SIGNED_DATA), "no timestamp"),
        (response(tag=0xA1), "no signed attributes"),
        (response(algorithm=MD5), "digest algorithm"),
        (response(algorithm=SHA384), "another time statement"),
        (response(attributes=attributes_for(info(time=b"20200101000000Z"))), "another time"),
        (response(attributes=attributes_for(info(), SIGNED_DATA)), "about something else"),
        (response(attributes=attribute(CONTENT_TYPE, TST_INFO)), "another time statement"),
        (response(attributes=attribute(MESSAGE_DIGEST, octets(b""))), "about something else"),
        (response(key=ec.generate_private_key(ec.SECP256R1())), "is not signed by"),
        (response()[:-1], "cut off"),
        (response() + b"\x00", "left over"),
        (b"\x30\x03\x02\x01\x00", "holds no others"),
        (b"", "no value"),
        (b"\x30" * (MAX_RESPONSE + 1), "a timestamp of"),
    ],
)
def test_whatever_is_not_exactly_that_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        read_response(data, SIGNATURE, AUTHORITY)


def test_no_changed_byte_gives_another_time() -> None:
    good = response()
    for place in range(len(good)):
        changed = good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :]
        try:
            assert read_response(changed, SIGNATURE, AUTHORITY) == NOW
        except InvalidInput:
            continue


def test_the_earliest_believed_time_counts_and_the_rest_for_nothing() -> None:
    stranger = authority_of(ec.generate_private_key(ec.SECP256R1()))
    early, late = response(info(time=b"20261121110000Z")), response()
    hour = timedelta(hours=1)
    assert signed_before([late, early, b""], SIGNATURE, [stranger, AUTHORITY]) == NOW - hour
    assert signed_before([late, early], SIGNATURE, [stranger]) is None
    assert signed_before([late], b"other", [AUTHORITY]) is None
    assert signed_before([], SIGNATURE, [AUTHORITY]) is None
    # Out of the authority's own time.
    young = replace(AUTHORITY, valid_from=NOW)
    assert signed_before([early], SIGNATURE, [young]) is None
    assert signed_before([late], SIGNATURE, [young]) == NOW
    assert signed_before([late], SIGNATURE, [replace(AUTHORITY, valid_until=NOW)]) is None


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(65537, 1024).public_key(),
        ec.generate_private_key(ec.SECP256K1()).public_key(),
        ed25519.Ed25519PrivateKey.generate().public_key(),
    ],
    ids=["RSA-1024", "secp256k1", "Ed25519"],
)
def test_weak_or_unusual_authority_keys_are_refused(
    key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey,
) -> None:
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    with pytest.raises(InvalidInput, match=r"tsa\.test: a timestamp authority signs with P-256"):
        Authority("tsa.test", pem, NOW, NOW)
    with pytest.raises(InvalidInput, match=r"tsa\.test: not a PEM public key"):
        Authority("tsa.test", "ü", NOW, NOW)
