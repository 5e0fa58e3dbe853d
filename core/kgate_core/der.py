"""A reader of strict DER (ITU-T X.690 section 10): shortest lengths and nothing left over.

Just enough for timestamps. It neither knows structures nor checks what they mean, and every
mistake in the bytes is InvalidInput.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Self

from kgate_core.errors import InvalidInput

_CONSTRUCTED: Final = 0x20
_LONG_TAG: Final = 0x1F
_LONG_LENGTH: Final = 0x80
_INTEGER: Final = 0x02
_OCTETS: Final = 0x04
_OID: Final = 0x06
_TIME: Final = 0x18
_TIME_TEXT: Final = re.compile(rb"([0-9]{14})(?:\.[0-9]{1,9})?Z")
_MAX_LENGTH_BYTES: Final = 4
_MAX_CHILDREN: Final = 1024
_MAX_OID: Final = 64  # bytes
_HEADER: Final = 2  # bytes of the shortest header
_MORE: Final = 0x80  # in an object identifier: the number goes on


@dataclass(frozen=True, slots=True)
class Node:
    """One value: its tag byte, its content, and all its bytes."""

    tag: int
    content: bytes
    data: bytes

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read exactly one value; raises InvalidInput for anything before, after or instead."""
        node, rest = cls._next(data)
        if rest:
            raise InvalidInput(f"DER: {len(rest)} bytes left over")
        return node

    @classmethod
    def _next(cls, data: bytes) -> tuple[Self, bytes]:
        if len(data) < _HEADER or data[0] & _LONG_TAG == _LONG_TAG:
            raise InvalidInput("DER: no value")
        length, start = data[1], _HEADER
        if length >= _LONG_LENGTH:
            start += length - _LONG_LENGTH
            encoded = data[_HEADER:start]
            length = int.from_bytes(encoded)
            shortest = (length.bit_length() + 7) // 8
            if not 1 <= len(encoded) == shortest <= _MAX_LENGTH_BYTES or length < _LONG_LENGTH:
                raise InvalidInput("DER: not the shortest form of a length")
        end = start + length
        if end > len(data):
            raise InvalidInput("DER: cut off")
        return cls(data[0], data[start:end], data[:end]), data[end:]

    def children(self, least: int, most: int = _MAX_CHILDREN) -> list[Self]:
        """Return what a constructed value holds; raises InvalidInput for fewer or more values."""
        if not self.tag & _CONSTRUCTED:
            raise InvalidInput(f"DER: the value {self.tag:#04x} holds no others")
        found: list[Self] = []
        rest = self.content
        while rest:
            node, rest = self._next(rest)
            found.append(node)
            if len(found) > most:
                raise InvalidInput(f"DER: more than {most} values")
        if len(found) < least:
            raise InvalidInput(f"DER: {len(found)} values of at least {least}")
        return found

    def only(self) -> Self:
        """Return the single value that this one holds."""
        return self.children(1, 1)[0]

    def octets(self) -> bytes:
        """Return the bytes of an OCTET STRING."""
        return self._primitive(_OCTETS)

    def integer(self) -> int:
        """Return the number of an INTEGER."""
        return int.from_bytes(self._primitive(_INTEGER), signed=True)

    def oid(self) -> str:
        """Return an OBJECT IDENTIFIER in dots (X.690 section 8.19)."""
        content = self._primitive(_OID)
        if not 1 <= len(content) <= _MAX_OID or content[-1] & _MORE:
            raise InvalidInput("DER: not an object identifier")
        numbers, number = [], 0
        for byte in content:
            number = number << 7 | byte & ~_MORE
            if not byte & _MORE:
                numbers.append(number)
                number = 0
        first = min(numbers[0] // 40, 2)
        return ".".join(str(part) for part in (first, numbers[0] - 40 * first, *numbers[1:]))

    def time(self) -> datetime:
        """Return a GeneralizedTime in UTC, fractions of a second cut."""
        text = self._primitive(_TIME)
        if (found := _TIME_TEXT.fullmatch(text)) is None:
            raise InvalidInput(f"DER: {text[:32]!r} is not a time in UTC")
        try:
            return datetime.strptime(found[1].decode("ascii"), "%Y%m%d%H%M%S").replace(tzinfo=UTC)
        except ValueError as exc:
            raise InvalidInput(f"DER: {text!r} is not a time in UTC") from exc

    def _primitive(self, tag: int) -> bytes:
        if self.tag != tag:
            raise InvalidInput(f"DER: the value {self.tag:#04x} instead of {tag:#04x}")
        return self.content
