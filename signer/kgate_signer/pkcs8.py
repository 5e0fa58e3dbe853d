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

from kgate_signer import der

KDF_ROUNDS: Final = 600_000  # OWASP's advice for PBKDF2-HMAC-SHA256; 0.2 s on a small machine
_SALT: Final = 16  # bytes
_KEY: Final = 32  # bytes
_BLOCK: Final = 16  # bytes in an AES block
_LINE: Final = 64  # characters in a line of PEM (RFC 7468 section 2)

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
    rounds = der.integer(KDF_ROUNDS)
    derived = der.sequence(
        der.value(der.OCTETS, salt), rounds, der.sequence(_HMAC_SHA256, der.NULL)
    )
    derivation = der.sequence(_PBKDF2, derived)
    encryption = der.sequence(_AES_256_CBC, der.value(der.OCTETS, start))
    scheme = der.sequence(_PBES2, der.sequence(derivation, encryption))
    text = base64.b64encode(der.sequence(scheme, der.value(der.OCTETS, hidden)))
    lines = [text[at : at + _LINE] for at in range(0, len(text), _LINE)]
    label = b"ENCRYPTED PRIVATE KEY-----"
    return b"\n".join([b"-----BEGIN " + label, *lines, b"-----END " + label, b""])
