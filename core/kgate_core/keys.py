"""Public keys: read, named and used to check a signature.

The algorithm belongs to the key as the trust metadata wrote it down; nothing in a bundle chooses
one. Known are ECDSA on P-256 with SHA-256 (signatures in DER) and Ed25519. No private key comes
here. Keys in their canonical form, as kgate writes them, are read without the library's readers for
all formats: those cost a pod a sixth of what importing the whole verifier does.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from kgate_core.digest import Digest
from kgate_core.errors import InvalidInput

# SubjectPublicKeyInfo up to the key itself: RFC 5480 section 2 (P-256; an uncompressed point
# follows) and RFC 8410 section 4 (Ed25519).
_P256: Final = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200")
_POINT: Final = 65  # bytes
_ED25519: Final = bytes.fromhex("302a300506032b6570032100")
_RAW: Final = 32  # bytes
_BEGIN: Final = b"-----BEGIN PUBLIC KEY-----\n"
_END: Final = b"-----END PUBLIC KEY-----\n"
_LINE: Final = 64  # characters of base64, RFC 7468 section 2


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
            der = _canonical_der(data)
            if der is not None and (key := _plain_key(der)) is not None:
                return cls(key[0], der)
            from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415  # see above
                load_pem_public_key,
            )

            return cls._of(load_pem_public_key(data))
        except (ValueError, UnsupportedAlgorithm) as exc:
            raise InvalidInput("not a PEM public key") from exc

    @classmethod
    def from_der(cls, der: bytes) -> PublicKey:
        """Read a SubjectPublicKeyInfo; raises InvalidInput for unknown types."""
        try:
            if (key := _plain_key(der)) is not None:
                return cls(key[0], der)
            from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415  # see above
                load_der_public_key,
            )

            return cls._of(load_der_public_key(der))
        except (ValueError, UnsupportedAlgorithm) as exc:
            raise InvalidInput("not a DER public key") from exc

    @classmethod
    def from_ed25519_raw(cls, raw: bytes) -> PublicKey:
        """Read the 32 raw bytes of an Ed25519 key, as TUF metadata carries them."""
        try:
            ed25519.Ed25519PublicKey.from_public_bytes(raw)
        except ValueError as exc:
            raise InvalidInput("not an Ed25519 public key") from exc
        return cls(Algorithm.ED25519, _ED25519 + raw)

    @classmethod
    def _of(cls, key: object) -> PublicKey:
        from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415  # see above
            Encoding,
            PublicFormat,
        )

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
        text = base64.b64encode(self.der)
        lines = (text[start : start + _LINE] + b"\n" for start in range(0, len(text), _LINE))
        return (_BEGIN + b"".join(lines) + _END).decode("ascii")

    def verify(self, signature: bytes, message: bytes) -> bool:
        """Return whether this key made `signature` over `message`; a bad one never raises."""
        found = _plain_key(self.der)
        key = None if found is None else found[1]
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


def _plain_key(
    der: bytes,
) -> tuple[Algorithm, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey] | None:
    """Read the canonical form of the two known types, None for all else; raises ValueError."""
    if der.startswith(_P256) and len(der) == len(_P256) + _POINT:
        point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), der[len(_P256) :])
        return Algorithm.ECDSA_P256, point
    if der.startswith(_ED25519) and len(der) == len(_ED25519) + _RAW:
        raw = der[len(_ED25519) :]
        return Algorithm.ED25519, ed25519.Ed25519PublicKey.from_public_bytes(raw)
    return None


def _canonical_der(pem: bytes) -> bytes | None:
    """Return what a PEM text of nothing but a public key holds, None for all else."""
    if not pem.startswith(_BEGIN) or not pem.endswith(_END):
        return None
    try:
        return base64.b64decode(pem[len(_BEGIN) : -len(_END)].replace(b"\n", b""), validate=True)
    except ValueError:
        return None
