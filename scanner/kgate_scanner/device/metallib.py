"""Recognises Apple Metal libraries by their header.

The header says the size of the file: u32 magic, 12 bytes of platform and versions, u64 size. The
format is not published and no functions are read.
"""

from __future__ import annotations

import struct
from typing import Final

MAGIC: Final = b"MTLB"
_HEADER: Final = struct.Struct("<4s12sQ")
_SMALLEST: Final = 88  # bytes of a header with its four table positions


def library_size(view: memoryview) -> int:
    """Return the size of the library at the start of `view`, 0 if there is none that fits."""
    if len(view) < _SMALLEST:
        return 0
    magic, _, size = _HEADER.unpack_from(view, 0)
    return size if magic == MAGIC and _SMALLEST <= size <= len(view) else 0
