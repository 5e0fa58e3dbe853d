"""Write the few DER values that key files and timestamp requests need (ITU-T X.690 section 10).

Reading is `kgate_core.der`'s.
"""

from __future__ import annotations

from typing import Final

OCTETS: Final = 0x04
NULL: Final = bytes.fromhex("0500")
TRUE: Final = bytes.fromhex("0101ff")
_SEQUENCE: Final = 0x30
_INTEGER: Final = 0x02
_LONG: Final = 0x80  # lengths from here on take more than one byte


def sequence(*parts: bytes) -> bytes:
    """Return a SEQUENCE of values that are encoded already."""
    return value(_SEQUENCE, b"".join(parts))


def integer(number: int) -> bytes:
    """Return a non-negative INTEGER, with one bit more than needed: DER's are signed."""
    return value(_INTEGER, number.to_bytes(number.bit_length() // 8 + 1))


def value(tag: int, content: bytes) -> bytes:
    """Return one value with its tag and the shortest form of its length."""
    length = len(content)
    if length < _LONG:
        return bytes([tag, length]) + content
    size = length.to_bytes((length.bit_length() + 7) // 8)
    return bytes([tag, _LONG | len(size)]) + size + content
