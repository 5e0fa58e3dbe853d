"""Encrypt a private key file so that guessing its passphrase is slow.

Format: PKCS#8 EncryptedPrivateKeyInfo (RFC 5958 section 3) with PBES2, PBKDF2-HMAC-SHA256 and
AES-256-CBC (RFC 8018 appendices A.2, A.4, B.2.5), which OpenSSL and every other reader of PEM keys
opens. cryptography writes the same with 2,048 rounds only; nothing here is a new scheme. Reading
is cryptography's.
"""

from __future__ import annotations

import base64
import os
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC
from cryptography.hazmat.primitives.padding import PKCS7

KDF_ROUNDS: Final = 600_000  # OWASP's advice for PBKDF2-HMAC-SHA256; 0.2 s on a small machine
_SALT: Final = 16  # bytes
_KEY: Final = 32  # bytes
_BLOCK: Final = 16  # bytes in an AES block
_LINE: Final = 64  # characters in a line of PEM (RFC 7468 section 2)

_SEQUENCE: Final = 0x30
_INTEGER: Final = 0x02
_OCTETS: Final = 0x04
_NULL: Final = bytes.fromhex("0500")
_PBES2: Final = bytes.fromhex("06092a864886f70d01050d")
_PBKDF2: Final = bytes.fromhex("06092a864886f70d01050c")
_HMAC_SHA256: Final = bytes.fromhex("06082a864886f70d0209")
_AES_256_CBC: Final = bytes.fromhex("060960864801650304012a")


def encrypt(private: bytes, passphrase: bytes) -> bytes:
    """Return the PEM text of a PKCS#8 private key in DER, encrypted under a passphrase."""
    salt, start = os.urandom(_SALT), os.urandom(_BLOCK)
    key = PBKDF2HMAC(hashes.SHA256(), _KEY, salt, KDF_ROUNDS).derive(passphrase)
    padder = PKCS7(_BLOCK * 8).padder()
    encryptor = Cipher(algorithms.AES(key), modes.CBC(start)).encryptor()
    hidden = encryptor.update(padder.update(private) + padder.finalize()) + encryptor.finalize()
    derivation = _sequence(
        _PBKDF2,
        _sequence(_value(_OCTETS, salt), _integer(KDF_ROUNDS), _sequence(_HMAC_SHA256, _NULL)),
    )
    scheme = _sequence(derivation, _sequence(_AES_256_CBC, _value(_OCTETS, start)))
    text = base64.b64encode(_sequence(_sequence(_PBES2, scheme), _value(_OCTETS, hidden)))
    lines = [text[at : at + _LINE] for at in range(0, len(text), _LINE)]
    label = b"ENCRYPTED PRIVATE KEY-----"
    return b"\n".join([b"-----BEGIN " + label, *lines, b"-----END " + label, b""])


def _sequence(*parts: bytes) -> bytes:
    return _value(_SEQUENCE, b"".join(parts))


def _integer(number: int) -> bytes:
    # One bit more than needed: DER integers are signed (X.690 section 8.3).
    return _value(_INTEGER, number.to_bytes(number.bit_length() // 8 + 1))


def _value(tag: int, content: bytes) -> bytes:
    length = len(content)
    if length < 0x80:  # noqa: PLR2004  # the short form (X.690 section 8.1.3.4)
        return bytes([tag, length]) + content
    size = length.to_bytes((length.bit_length() + 7) // 8)
    return bytes([tag, 0x80 | len(size)]) + size + content
