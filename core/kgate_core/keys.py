"""Public keys: read, named and used to check a signature.

The algorithm belongs to the key as the trust metadata wrote it down; nothing in a bundle chooses
one. Known are ECDSA on P-256 with SHA-256 (signatures in DER) and Ed25519. No private key comes
here.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from enum import StrEnum

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_pem_public_key,
)

from kgate_core.digest import Digest
from kgate_core.errors import InvalidInput


class Algorithm(StrEnum):
    """A key type together with its one signature scheme, named as TUF names the scheme."""

    ECDSA_P256 = "ecdsa-sha2-nistp256"
    ED25519 = "ed25519"


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key in its canonical SubjectPublicKeyInfo DER bytes (RFC 5280 section 4.1.2.7)."""

    algorithm: Algorithm
    der: bytes

    @classmethod
    def from_pem(cls, pem: str | bytes) -> PublicKey:
        """Read a PEM public key; raises InvalidInput for unknown types."""
        data = pem.encode("utf-8", "replace") if isinstance(pem, str) else pem
        try:
            return cls._of(load_pem_public_key(data))
        except (ValueError, UnsupportedAlgorithm) as exc:
            raise InvalidInput("not a PEM public key") from exc

    @classmethod
    def from_der(cls, der: bytes) -> PublicKey:
        """Read a SubjectPublicKeyInfo; raises InvalidInput for unknown types."""
        try:
            return cls._of(load_der_public_key(der))
        except (ValueError, UnsupportedAlgorithm) as exc:
            raise InvalidInput("not a DER public key") from exc

    @classmethod
    def from_ed25519_raw(cls, raw: bytes) -> PublicKey:
        """Read the 32 raw bytes of an Ed25519 key, as TUF metadata carries them."""
        try:
            return cls._of(ed25519.Ed25519PublicKey.from_public_bytes(raw))
        except ValueError as exc:
            raise InvalidInput("not an Ed25519 public key") from exc

    @classmethod
    def _of(cls, key: object) -> PublicKey:
        match key:
            case ec.EllipticCurvePublicKey() if isinstance(key.curve, ec.SECP256R1):
                algorithm = Algorithm.ECDSA_P256
            case ed25519.Ed25519PublicKey():
                algorithm = Algorithm.ED25519
            case _:
                raise InvalidInput(
                    f"a key of type {type(key).__name__} is not supported",
                    hint="use ECDSA P-256 (the default) or Ed25519",
                )
        return cls(algorithm, key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))

    @property
    def keyid(self) -> str:
        """The sha256 of the DER bytes in hex: how trust metadata names the key."""
        return Digest.of(self.der).hex

    @property
    def hint(self) -> str:
        """The same sha256 in base64: how Sigstore bundles and DSSE signatures name the key."""
        return base64.b64encode(bytes.fromhex(self.keyid)).decode("ascii")

    @property
    def pem(self) -> str:
        """The key in PEM, as other tools read it."""
        key = load_der_public_key(self.der)
        return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode("ascii")

    def verify(self, signature: bytes, message: bytes) -> bool:
        """Return whether this key made `signature` over `message`; a bad one never raises."""
        key = load_der_public_key(self.der)
        try:
            match self.algorithm, key:
                case Algorithm.ECDSA_P256, ec.EllipticCurvePublicKey():
                    key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
                case Algorithm.ED25519, ed25519.Ed25519PublicKey():
                    key.verify(signature, message)
                case _:
                    return False
        except InvalidSignature:
            return False
        return True
