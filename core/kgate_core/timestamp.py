"""When was this signed? Timestamps of an independent authority, checked against its pinned key.

Format: RFC 3161 responses (section 2.4.2) around CMS signed data (RFC 5652 section 5). The
authority's public key stands in the trust metadata, so no certificate is read, no chain is built
and nothing the response carries chooses whom to believe. Only strict DER of the few structures
needed is understood. Nothing is asked for here: the signer does that.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from kgate_core.der import Node
from kgate_core.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from cryptography.hazmat.primitives.asymmetric import rsa

MAX_RESPONSE: Final = 64 * 1024  # bytes; with a certificate chain they take about 5,000
_MIN_RSA: Final = 2048  # bits
_GRANTED: Final = (0, 1)  # RFC 3161 section 2.4.2: granted, grantedWithMods
_SIGNED_DATA: Final = "1.2.840.113549.1.7.2"
_TST_INFO: Final = "1.2.840.113549.1.9.16.1.4"
_CONTENT_TYPE: Final = "1.2.840.113549.1.9.3"
_MESSAGE_DIGEST: Final = "1.2.840.113549.1.9.4"
_ATTRIBUTES: Final = 0xA0  # [0] IMPLICIT
_HASHES: Final[dict[str, hashes.HashAlgorithm]] = {
    "2.16.840.1.101.3.4.2.1": hashes.SHA256(),
    "2.16.840.1.101.3.4.2.2": hashes.SHA384(),
    "2.16.840.1.101.3.4.2.3": hashes.SHA512(),
}


@dataclass(frozen=True, slots=True)
class Authority:
    """A timestamp authority that the site believes: its public key, and when it counts."""

    name: str
    pem: str
    valid_from: datetime
    valid_until: datetime

    def __post_init__(self) -> None:
        _load(self.pem, self.name)

    def verify(self, signature: bytes, message: bytes, algorithm: hashes.HashAlgorithm) -> bool:
        """Return whether this authority signed `message`."""
        key = _load(self.pem, self.name)
        try:
            if isinstance(key, ec.EllipticCurvePublicKey):
                key.verify(signature, message, ec.ECDSA(algorithm))
            else:
                from cryptography.hazmat.primitives.asymmetric import padding  # noqa: PLC0415

                key.verify(signature, message, padding.PKCS1v15(), algorithm)
        except InvalidSignature:
            return False
        return True


def signed_before(
    responses: Iterable[bytes], signature: bytes, authorities: Iterable[Authority]
) -> datetime | None:
    """Return the earliest time at which a believed authority saw `signature`, or None.

    Responses that are malformed, about something else or by somebody else count for nothing.
    """
    trusted = tuple(authorities)
    times = (_moment(response, signature, trusted) for response in responses)
    return min((time for time in times if time is not None), default=None)


def _moment(
    response: bytes, signature: bytes, authorities: tuple[Authority, ...]
) -> datetime | None:
    for authority in authorities:
        try:
            moment = read_response(response, signature, authority)
        except InvalidInput:
            continue
        if authority.valid_from <= moment < authority.valid_until:
            return moment
    return None


def read_response(response: bytes, message: bytes, authority: Authority) -> datetime:
    """Return when `authority` says it saw `message`; raises InvalidInput if it does not say so."""
    if len(response) > MAX_RESPONSE:
        raise InvalidInput(f"a timestamp of {len(response)} bytes")
    status, *token = Node.parse(response).children(1, 2)
    if status.children(1)[0].integer() not in _GRANTED or not token:
        raise InvalidInput("the timestamp authority granted nothing")
    info, signer = _read_token(token[0])
    _check_signer(info, signer, authority)
    return _read_info(info, message)


def _read_token(token: Node) -> tuple[bytes, Node]:
    """Return the time statement's bytes and the one signer's block (RFC 5652 section 5.1)."""
    kind, content = token.children(2, 2)
    if kind.oid() != _SIGNED_DATA:
        raise InvalidInput("a timestamp that is no signed data")
    _, _, encapsulated, *rest = content.only().children(4)
    inner_kind, inner = encapsulated.children(2, 2)
    if inner_kind.oid() != _TST_INFO:
        raise InvalidInput("signed data that is no timestamp")
    return inner.only().octets(), rest[-1].only()


def _check_signer(info: bytes, signer: Node, authority: Authority) -> None:
    _, _, digest, attributes, _, signature, *_ = signer.children(6)
    if attributes.tag != _ATTRIBUTES:
        raise InvalidInput("the timestamp has no signed attributes")
    algorithm = _algorithm(digest)
    found = {}
    for attribute in attributes.children(1):
        kind, values = attribute.children(2, 2)
        found[kind.oid()] = values.only()
    if _CONTENT_TYPE not in found or found[_CONTENT_TYPE].oid() != _TST_INFO:
        raise InvalidInput("the timestamp's signed attributes are about something else")
    seen = hashlib.new(algorithm.name, info).digest()
    if _MESSAGE_DIGEST not in found or not hmac.compare_digest(
        found[_MESSAGE_DIGEST].octets(), seen
    ):
        raise InvalidInput("the timestamp's signed attributes are about another time statement")
    # Signed is the SET itself, not its implicit tag (RFC 5652 section 5.4).
    signed = b"\x31" + attributes.data[1:]
    if not authority.verify(signature.octets(), signed, algorithm):
        raise InvalidInput(f"the timestamp is not signed by {authority.name}")


def _read_info(info: bytes, message: bytes) -> datetime:
    _, _, imprint, _, moment, *_ = Node.parse(info).children(5)
    algorithm, digest = imprint.children(2, 2)
    if digest.octets() != hashlib.new(_algorithm(algorithm).name, message).digest():
        raise InvalidInput("the timestamp is about another signature")
    return moment.time()


def _algorithm(node: Node) -> hashes.HashAlgorithm:
    oid = node.children(1)[0].oid()
    if oid not in _HASHES:
        raise InvalidInput(f"the timestamp uses the digest algorithm {oid}")
    return _HASHES[oid]


def _load(pem: str, name: str) -> ec.EllipticCurvePublicKey | rsa.RSAPublicKey:
    # Every pod would pay for these imports, and most meet no authority, few one with an RSA key.
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
        load_pem_public_key,
    )

    try:
        key = load_pem_public_key(pem.encode("ascii", "replace"))
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise InvalidInput(f"{name}: not a PEM public key") from exc
    if isinstance(key, ec.EllipticCurvePublicKey):
        if isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1):
            return key
    else:
        from cryptography.hazmat.primitives.asymmetric import rsa  # noqa: PLC0415

        if isinstance(key, rsa.RSAPublicKey) and key.key_size >= _MIN_RSA:
            return key
    raise InvalidInput(
        f"{name}: a timestamp authority signs with P-256, P-384 or RSA from 2,048 bits"
    )
