"""Stretches of bytes to walk, and the images that walkers find in them.

A walker reads container headers and yields payloads; it neither decompresses nor looks into code.
Searches here are zero-copy: regular expressions accept any buffer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from kgate_scanner.device.images import Compression, ImageKind

if TYPE_CHECKING:
    from collections.abc import Iterator

_WINDOW: Final = 1024**2  # bytes looked at together when zeros are told from other bytes


@dataclass(frozen=True, slots=True)
class Extent:
    """Some bytes in which containers lie back to back."""

    data: memoryview
    section: str
    """Name of the section, for reports."""
    base: int
    """File offset of the first byte, or of the compressed bundle the bytes came out of."""
    mapped: bool = True
    """True if positions here are file offsets minus `base`; false after decompression."""

    def at(self, position: int) -> int:
        """Return the file offset to report for a position in `data`."""
        return self.base + position if self.mapped else self.base

    def part(self, start: int, end: int) -> Extent:
        """Return the stretch from `start` up to `end`."""
        return replace(self, data=self.data[start:end], base=self.at(start))

    def find(self, needle: re.Pattern[bytes], start: int) -> int:
        """Return where `needle` next matches at or after `start`, else the length."""
        match = needle.search(self.data, start)
        return match.start() if match else len(self.data)


@dataclass(frozen=True, slots=True)
class Payload:
    """One stored image as its container describes it."""

    kind: ImageKind
    target: str
    """Architecture that the container claims; empty if it claims none."""
    container_format: str
    container: int
    entry: int
    place: Extent
    """The stored bytes."""
    compression: Compression = Compression.NONE
    size: int | None = None
    """Declared size after decompression, bytes; None if the container does not say."""
    parent_size: int | None = None
    """Stored size of the compressed bundle that this one is a member of."""
    checksum: int | None = None
    """First eight bytes (little-endian) of the MD5 of the contents, if the container says so."""
    options: str = ""
    lineinfo: str = ""
    debug: bool = False
    relocatable: bool = False

    @property
    def is_compressed(self) -> bool:
        """True if the stored bytes must be expanded; members of a bundle already are."""
        return self.compression is not Compression.NONE and self.parent_size is None

    @property
    def cost(self) -> int:
        """Bytes of memory that reading this image holds."""
        return max(len(self.place.data), self.size or 0)


def nonzero_bytes(view: memoryview) -> int:
    """Return the length from the first to the last byte that is not zero; 0 if there is none."""
    first, last = _edge(view, reverse=False), _edge(view, reverse=True)
    return 0 if first is None or last is None else last - first + 1


def _edge(view: memoryview, *, reverse: bool) -> int | None:
    for start in _starts(len(view), reverse=reverse):
        window = bytes(view[start : start + _WINDOW])
        kept = window.rstrip(b"\0") if reverse else window.lstrip(b"\0")
        if kept:
            return start + (len(kept) - 1 if reverse else len(window) - len(kept))
    return None


def _starts(size: int, *, reverse: bool) -> Iterator[int]:
    starts = range(0, size, _WINDOW)
    return iter(reversed(starts)) if reverse else iter(starts)


def literal(needle: bytes) -> re.Pattern[bytes]:
    """Return a pattern for exactly these bytes."""
    return re.compile(re.escape(needle))
