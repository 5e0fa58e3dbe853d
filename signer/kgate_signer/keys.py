"""Private keys behind one port: files here, HSM and KMS through securesystemslib.

A key is named by a URI (`file:keys/admit.pem?passphrase-file=…`, `hsm:2?…`, `awskms:…`). A
passphrase or PIN is always read from a file named in the URI and never stands in it. Files are
PKCS#8 PEM (RFC 5958), readable by their owner alone. This module does not say what a key may
sign: trust metadata does.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, Self
from urllib.parse import parse_qsl, urlencode

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from kgate_core.errors import Conflict, InvalidInput, TrustError
from kgate_core.keys import Algorithm, PublicKey
from kgate_signer import pkcs8

if TYPE_CHECKING:
    from collections.abc import Callable

ANY: Final = frozenset(Algorithm)
APPROVED: Final = frozenset({Algorithm.ECDSA_P256})
"""What the modules of most validated systems offer; many still lack Ed25519 (FIPS 186-5)."""
_OWNER_ONLY: Final = 0o600
_PUBLIC: Final = b"-----BEGIN PUBLIC KEY-----"
_MAX_KEY_FILE: Final = 64 * 1024  # bytes; a P-256 key takes 300

_PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


class KeyProvider(Protocol):
    """Something that signs with one private key and never shows it."""

    def public_key(self) -> PublicKey:
        """Return the public half; raises TrustError if the device cannot be reached."""

    def sign(self, message: bytes, /) -> bytes:
        """Return a signature as `PublicKey.verify` reads it; raises TrustError."""


@dataclass(frozen=True, slots=True)
class FileKey:
    """A private key that was read from a file, held in this process' memory."""

    _private: _PrivateKey = field(repr=False)

    @classmethod
    def generate(cls, algorithm: Algorithm = Algorithm.ECDSA_P256) -> Self:
        """Make a new key with the operating system's randomness."""
        if algorithm is Algorithm.ED25519:
            return cls(ed25519.Ed25519PrivateKey.generate())
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def from_pem(cls, pem: bytes, passphrase: bytes | None, *, what: str = "key") -> Self:
        """Read a PKCS#8 PEM; raises TrustError for a wrong passphrase or another kind of key."""
        try:
            private = load_pem_private_key(pem, passphrase)
        except TypeError as exc:
            # cryptography's way to say that a passphrase is missing or superfluous.
            missing = passphrase is None
            raise TrustError(
                f"{what}: the private key is {'encrypted' if missing else 'not encrypted'}",
                hint="add ?passphrase-file=PATH to the key's URI"
                if missing
                else "leave passphrase-file out of the key's URI",
            ) from exc
        except (ValueError, UnsupportedAlgorithm) as exc:
            if b"ENCRYPTED" in pem:
                raise TrustError(
                    f"{what}: the passphrase does not open this private key",
                    hint="check the file named by passphrase-file; one final newline is ignored",
                ) from exc
            raise TrustError(
                f"{what}: not a PEM private key", hint="make one with `kgate keys generate`"
            ) from exc
        match private:
            case ec.EllipticCurvePrivateKey() if isinstance(private.curve, ec.SECP256R1):
                return cls(private)
            case ed25519.Ed25519PrivateKey():
                return cls(private)
            case _:
                raise TrustError(
                    f"{what}: a private key of type {type(private).__name__} is not supported",
                    hint="use ECDSA P-256 (the default) or Ed25519",
                )

    def to_pem(self, passphrase: bytes | None) -> bytes:
        """Return PKCS#8 PEM, encrypted if there is a passphrase."""
        if passphrase is not None and not passphrase:
            raise InvalidInput("an empty passphrase protects nothing", hint="leave it out instead")
        form = PrivateFormat.PKCS8
        if passphrase is None:
            return self._private.private_bytes(Encoding.PEM, form, NoEncryption())
        der = self._private.private_bytes(Encoding.DER, form, NoEncryption())
        return pkcs8.encrypt(der, passphrase)

    def public_key(self) -> PublicKey:
        """Return the public half."""
        der = self._private.public_key().public_bytes(
            Encoding.DER, PublicFormat.SubjectPublicKeyInfo
        )
        return PublicKey.from_der(der)

    def sign(self, message: bytes) -> bytes:
        """Return a signature: DER over SHA-256 for P-256, 64 raw bytes for Ed25519."""
        if isinstance(self._private, ed25519.Ed25519PrivateKey):
            return self._private.sign(message)
        return self._private.sign(message, ec.ECDSA(hashes.SHA256()))


def write_private_file(path: Path, data: bytes) -> None:
    """Create a file that only its owner can read; raises Conflict if the name is taken."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ONLY)
    except FileExistsError as exc:
        raise Conflict(f"{path} exists", hint="private keys are never overwritten") from exc
    except OSError as exc:
        raise TrustError(f"{path} cannot be written: {exc.strerror}") from exc
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(handle)


def read_private_file(name: str) -> bytes:
    """Return the bytes of a key or passphrase file; raises TrustError if others may reach it.

    A file of root's may be readable by its group: so administrators hand keys to a service, and
    Kubernetes its Secrets. Only what says that it is a public key may be anybody's to read.
    """
    path = Path(name)
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            mode = status.st_mode
            data = file.read(_MAX_KEY_FILE + 1)
    except OSError as exc:
        raise TrustError(f"{path} cannot be read: {exc.strerror}") from exc
    others = stat.S_IRWXG | stat.S_IRWXO
    if status.st_uid == 0 != os.geteuid():
        others &= ~stat.S_IRGRP
    if mode & others and not data.startswith(_PUBLIC):
        raise TrustError(
            f"{path} can be read by others (mode {stat.S_IMODE(mode):04o})",
            hint=f"chmod 600 {path}",
        )
    if len(data) > _MAX_KEY_FILE:
        raise TrustError(f"{path} is larger than {_MAX_KEY_FILE} bytes: not a key")
    return data


def from_uri(
    uri: str,
    *,
    read_file: Callable[[str], bytes] = read_private_file,
    allowed: frozenset[Algorithm] = ANY,
) -> KeyProvider:
    """Open the private key that a URI names; raises InvalidInput or TrustError.

    `read_file` resolves the names of files in the URI: relative names mean what its caller wants.
    A key whose algorithm is not `allowed` is refused: pass APPROVED where only that may be used.
    """
    return check_allowed(_open(uri, read_file), allowed)


def check_allowed(key: KeyProvider, allowed: frozenset[Algorithm]) -> KeyProvider:
    """Return the key itself; raises TrustError if its algorithm is not allowed."""
    algorithm = key.public_key().algorithm
    if algorithm not in allowed:
        raise TrustError(
            f"the key is of type {algorithm}; allowed are {', '.join(sorted(allowed))}",
            hint="make a P-256 key, or allow this algorithm in the settings",
        )
    return key


def _open(uri: str, read_file: Callable[[str], bytes]) -> KeyProvider:
    scheme, colon, rest = uri.partition(":")
    path, _, query = rest.partition("?")
    if not colon:
        raise InvalidInput(
            f"not the URI of a key: {uri!r}", hint="for a file write file:keys/admit.pem"
        )
    parameters = dict(parse_qsl(query, keep_blank_values=True))
    for secret in ("passphrase", "pin"):
        if secret in parameters:
            # The value is not repeated: messages end up in logs.
            raise InvalidInput(
                f"the URI of a {scheme} key carries a {secret}",
                hint=f"put it into a file of mode 0600 and write {secret}-file=PATH",
            )
    if scheme == "file":
        return _file_key(path, parameters, read_file)
    return _library_key(scheme, path, parameters, read_file)


def _file_key(
    path: str, parameters: dict[str, str], read_file: Callable[[str], bytes]
) -> KeyProvider:
    secret_file = parameters.pop("passphrase-file", None)
    if parameters:
        raise InvalidInput(f"the URI of a file key knows no parameter {min(parameters)!r}")
    passphrase = None if secret_file is None else _read_secret(secret_file, read_file)
    return FileKey.from_pem(read_file(path.removeprefix("//")), passphrase, what=path)


def _library_key(
    scheme: str, path: str, parameters: dict[str, str], read_file: Callable[[str], bytes]
) -> KeyProvider:
    from kgate_signer import devices  # noqa: PLC0415  # securesystemslib only where it is used

    public_file = parameters.pop("public-key-file", None)
    if public_file is None:
        raise InvalidInput(
            f"the URI of a {scheme} key needs public-key-file=PATH",
            hint="the public key is compared with what the device answers",
        )
    secret_file = parameters.pop("pin-file", None)
    query = f"?{urlencode(parameters)}" if parameters else ""
    return devices.DeviceKey.open(
        f"{scheme}:{path}{query}",
        PublicKey.from_pem(read_file(public_file)),
        None if secret_file is None else _read_secret(secret_file, read_file),
    )


def _read_secret(name: str, read_file: Callable[[str], bytes]) -> bytes:
    secret = read_file(name).removesuffix(b"\n").removesuffix(b"\r")
    if not secret:
        raise TrustError(f"{name} is empty", hint="it holds the passphrase and nothing else")
    return secret
