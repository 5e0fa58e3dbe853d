"""Spread blobs over parts of a strict size, cutting large ones, with every size known beforehand.

Order is kept: documents first. A blob is cut only where that fills a part by an eighth or more, or
where it is larger than a part. Nothing is read or written.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from kgate_core.digest import Digest
from kgate_core.errors import InvalidInput
from kgate_mirror_server.bundle.document import BUNDLE, MAX_PARTS
from kgate_mirror_server.bundle.layout import BLOCK, END, Entry, padded, taken
from kgate_mirror_server.bundle.sealed import sealed_size

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kgate_mirror_server.bundle.document import BundleDocument

DEFAULT_PART: Final = 4480 * 1024**2  # bytes; leaves a 4.7 GB disc room for its file system
SMALLEST: Final = 64 * 1024  # bytes of content that a part must have room for
_FILL: Final = 8  # a remainder of less than this fraction of a part is left empty
_UNKNOWN: Final = Digest("0" * 64)


def pack(document: BundleDocument, blobs: Mapping[Digest, int], limit: int) -> BundleDocument:
    """Return the document with parts of at most `limit` bytes.

    Digests of segments are still unknown: `exporting` fills them in, which changes no size.
    Raises InvalidInput if a part could not even hold the bundle's own description.
    """
    size = 0
    while True:
        head = taken(size) + sum(taken(item.size) for item in document.head) + END
        if limit - head < SMALLEST:
            raise InvalidInput(
                f"parts of {limit} bytes are too small: {head} bytes of each describe the bundle",
                hint=f"use parts of at least {head + SMALLEST} bytes",
            )
        packed = replace(document, parts=_fill(blobs, limit - head))
        # The description grows with the number of entries, and these with the description.
        needed = sealed_size(packed.to_json(), BUNDLE)
        if padded(needed) <= padded(size):
            return packed
        size = needed


def _fill(blobs: Mapping[Digest, int], room: int) -> tuple[tuple[Entry, ...], ...]:
    """Spread blobs over parts with `room` bytes each."""
    parts: list[list[Entry]] = [[]]
    left = room
    for digest, size in blobs.items():
        if taken(size) <= left:
            parts[-1].append(Entry(digest, size, digest))
            left -= taken(size)
            continue
        if taken(size) <= room and left < max(room // _FILL, SMALLEST):
            parts.append([Entry(digest, size, digest)])
            left = room - taken(size)
            continue
        offset = 0
        while offset < size:
            if left < max(room // _FILL, SMALLEST) and offset + left - BLOCK < size:
                parts.append([])
                left = room
            count = min(size - offset, (left - BLOCK) // BLOCK * BLOCK)
            parts[-1].append(Entry(_UNKNOWN, count, digest, offset, size))
            left -= taken(count)
            offset += count
    if len(parts) > MAX_PARTS:
        raise InvalidInput(f"{len(parts)} parts are more than {MAX_PARTS}", hint="use larger parts")
    return tuple(tuple(part) for part in parts)
