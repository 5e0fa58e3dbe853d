"""Where each byte of a part lies: plain tar files whose every header follows from the plan.

A part holds `bundle.json` first, then the head (trust documents and the OCI image layout's own two
files), then blobs and segments of blobs. Headers are GNU tar (POSIX.1-1988 with base-256 sizes),
with fixed owner, mode and time, so equal plans give equal bytes. A reader computes every position
from the signed plan and never follows a name or a size that a tar header states.
"""

from __future__ import annotations

import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kgate_core.digest import Digest

BLOCK: Final = 512  # bytes; tar's unit
END: Final = 2 * BLOCK  # bytes of zeros that end an archive
DOCUMENT: Final = "bundle.json"


@dataclass(frozen=True, slots=True)
class Entry:
    """A blob, or a segment of one, in a part."""

    digest: Digest
    """Of the bytes here: the blob's own if it is whole."""
    size: int
    """Bytes here."""
    blob: Digest
    offset: int = 0
    """Where the bytes begin in the blob."""
    of: int = 0
    """Bytes of the whole blob, if it is cut; else 0."""

    @property
    def cut(self) -> bool:
        """True if this is a segment of a larger blob."""
        return self.of > 0

    @property
    def path(self) -> str:
        """Name in the tar; segments in order of their names are the blob."""
        if self.cut:
            return f"segments/{self.blob.hex}/{self.offset:016}"
        return f"blobs/sha256/{self.blob.hex}"


@dataclass(frozen=True, slots=True)
class HeadFile:
    """A small file that stands in every part."""

    path: str
    digest: Digest
    size: int


@dataclass(frozen=True, slots=True)
class Placed:
    """One file of a part with the position of its header and of its first byte."""

    path: str
    size: int
    header: int
    content: int
    entry: Entry | None = None
    """None for `bundle.json` and head files."""
    head: HeadFile | None = None

    @property
    def end(self) -> int:
        """Position after the content's padding."""
        return self.content + padded(self.size)


def padded(size: int) -> int:
    """Return a size in bytes rounded up to whole blocks."""
    return -(-size // BLOCK) * BLOCK


def taken(size: int) -> int:
    """Return how many bytes of a part a file of this size takes."""
    return BLOCK + padded(size)


def place(
    document_size: int, head: Sequence[HeadFile], entries: Sequence[Entry]
) -> Iterator[Placed]:
    """Yield every file of a part in its order."""
    position = 0
    files: list[tuple[str, int, Entry | None, HeadFile | None]] = [
        (DOCUMENT, document_size, None, None)
    ]
    files += [(item.path, item.size, None, item) for item in head]
    files += [(item.path, item.size, item, None) for item in entries]
    for path, size, entry, item in files:
        placed = Placed(path, size, position, position + BLOCK, entry, item)
        yield placed
        position = placed.end


def part_size(document_size: int, head: Sequence[HeadFile], entries: Sequence[Entry]) -> int:
    """Return the exact size of a part in bytes."""
    sizes = [document_size, *(item.size for item in head), *(item.size for item in entries)]
    return sum(taken(size) for size in sizes) + END


def header(path: str, size: int) -> bytes:
    """Return a file's tar header."""
    info = tarfile.TarInfo(path)
    info.size, info.mode = size, 0o444
    return info.tobuf(tarfile.GNU_FORMAT)


def read_header(block: bytes) -> tuple[str, int] | None:
    """Return name and size that a header states, or None if it is not a plain file's header."""
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
    except (tarfile.HeaderError, UnicodeError):
        return None
    return (info.name, info.size) if info.isreg() else None
