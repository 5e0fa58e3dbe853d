"""Gives read pages of a memory-mapped file back to the operating system.

Pages of a mapping stay in the resident set after they were read, so that reading a file of 1 GB
would cost 1 GB. They are dropped as the scan moves on; the kernel's page cache still has them.
Views that do not span a whole mapping are left alone.
"""

from __future__ import annotations

import mmap
from typing import Final

_PAGE: Final = mmap.PAGESIZE


class Pages:
    """The pages under one view; does nothing where the view is not a mapping."""

    def __init__(self, view: memoryview) -> None:
        whole = view.obj
        is_whole = isinstance(whole, mmap.mmap) and len(whole) == view.nbytes
        self._map = whole if is_whole and isinstance(whole, mmap.mmap) else None

    def release(self, start: int, size: int) -> None:
        """Drop whole pages within `size` bytes from `start` (both in bytes of the file)."""
        first = (start + _PAGE - 1) // _PAGE * _PAGE
        length = (start + size) // _PAGE * _PAGE - first
        if self._map is not None and length > 0 and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED, first, length)
