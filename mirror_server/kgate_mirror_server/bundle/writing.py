"""Write the files of one part, comparing every byte with its digest on the way.

Which file lies where, and what becomes of a part that cannot be finished, is decided in
`exporting`.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from kgate_core.errors import IntegrityError
from kgate_mirror_server.bundle.layout import END, Entry, header, padded
from kgate_mirror_server.store.copying import Piece

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kgate_mirror_server.bundle.layout import Placed
    from kgate_mirror_server.ingest.fetch import Progress
    from kgate_mirror_server.ports import BlobStore
    from kgate_mirror_server.store.copying import NewFile


def write_files(
    disc: NewFile, files: Iterable[Placed], sealed: bytes, store: BlobStore, progress: Progress
) -> None:
    """Write the files of a part and its end; raises IntegrityError, NotFound, OSError."""
    for placed in files:
        disc.write(header(placed.path, placed.size))
        if placed.entry is not None:
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
        raise IntegrityError(
            f"the stored blob {entry.blob} is damaged", hint="run `kgate scrub`, then export again"
        )
