"""Write the files of one part, comparing every byte with its digest on the way.

Where a blob is cut, its segments get their digests from the same reading. Which file lies where,
and what becomes of a part that cannot be finished, is decided in `exporting`.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Self

from kgate_core.digest import Digest
from kgate_core.errors import IntegrityError
from kgate_mirror_server.bundle.layout import END, Entry, header, padded
from kgate_mirror_server.store.copying import Piece

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kgate_mirror_server.bundle.layout import Placed
    from kgate_mirror_server.ingest.fetch import Progress
    from kgate_mirror_server.ports import BlobStore
    from kgate_mirror_server.store.copying import NewFile


class Cuts:
    """Digests of the segments that were written, in order, with the blobs they must make.

    A blob's own digest is computed beside its segment's, on a second core.
    """

    def __init__(self) -> None:
        """Start with nothing written."""
        self.found: dict[tuple[Digest, int], Digest] = {}
        """Of each segment, by its blob and where it begins there."""
        self._wholes: dict[Digest, hashlib._Hash] = {}
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="kgate-whole")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of the second core."""
        self._pool.shutdown()

    def copy(self, disc: NewFile, entry: Entry, store: BlobStore, progress: Progress) -> None:
        """Write a segment and note its digest; raises IntegrityError if its blob is damaged."""
        whole = self._wholes.setdefault(entry.blob, hashlib.sha256())
        with store.path(entry.blob).open("rb") as source:
            piece = Piece(source, entry.offset, entry.size)
            if entry.offset:
                both = _Both(hashlib.sha256(), whole, self._pool)
                count = disc.copy(piece, both, progress)
                digest = both.first.hexdigest()
            else:
                # The first segment is how its blob begins: one digest serves both.
                count = disc.copy(piece, whole, progress)
                digest = whole.hexdigest()
        self.found[entry.blob, entry.offset] = Digest(digest)
        ended = entry.offset + entry.size == entry.of
        if count != entry.size or (ended and whole.hexdigest() != entry.blob.hex):
            raise _damaged(entry.blob)


class _Both:
    """Two digests over the same bytes, at the same time."""

    def __init__(
        self, first: hashlib._Hash, second: hashlib._Hash, pool: ThreadPoolExecutor
    ) -> None:
        self.first = first
        self._second = second
        self._pool = pool

    def update(self, data: memoryview) -> None:
        """Take bytes in; they may be overwritten afterwards."""
        other = self._pool.submit(self._second.update, data)
        self.first.update(data)
        other.result()


def write_files(
    disc: NewFile,
    files: Iterable[Placed],
    sealed: bytes,
    store: BlobStore,
    progress: Progress,
    cuts: Cuts | None = None,
) -> None:
    """Write the files of a part and its end; raises IntegrityError, NotFound, OSError.

    With `cuts` the digests of segments are still unknown, and noted there.
    """
    for placed in files:
        disc.write(header(placed.path, placed.size))
        if placed.entry is not None:
            if cuts is not None and placed.entry.cut:
                cuts.copy(disc, placed.entry, store, progress)
            else:
                _copy(disc, placed.entry, store, progress)
        elif placed.head is not None:
            whole = Entry(placed.head.digest, placed.head.size, placed.head.digest)
            _copy(disc, whole, store, progress)
        else:
            disc.write(sealed)
        disc.write(bytes(padded(placed.size) - placed.size))
    disc.write(bytes(END))


def _copy(disc: NewFile, entry: Entry, store: BlobStore, progress: Progress) -> None:
    state = hashlib.sha256()
    with store.path(entry.blob).open("rb") as source:
        disc.copy(Piece(source, entry.offset, entry.size), state, progress)
    if state.hexdigest() != entry.digest.hex:
        raise _damaged(entry.blob)


def _damaged(blob: Digest) -> IntegrityError:
    return IntegrityError(
        f"the stored blob {blob} is damaged", hint="run `kgate scrub`, then export again"
    )
