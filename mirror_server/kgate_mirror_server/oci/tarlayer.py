"""One variant's files as an uncompressed tar layer, made on the fly and the same bytes each time.

Nothing is stored twice: headers follow from the manifest, contents come from the blob store. Names,
modes, owners and times are fixed, so the layer's digest is a function of the variant alone.
"""

from __future__ import annotations

import hashlib
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kgate_core.digest import Digest
from kgate_mirror_server.bundle.layout import BLOCK, END, padded
from kgate_mirror_server.bundle.streams import read_blob

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kgate_mirror_server.ports import BlobStore, PublishedVariant, ServedFile

_FILE_MODE: Final = 0o444
_FOLDER_MODE: Final = 0o755


@dataclass(frozen=True, slots=True)
class _Piece:
    """Bytes that are given, or a file's content with its padding."""

    head: bytes
    file: ServedFile | None = None

    @property
    def size(self) -> int:
        return len(self.head) + (0 if self.file is None else padded(self.file.size))


class TarLayer:
    """The tar of a variant, at `build/<variant>/…`; can be read from any offset."""

    def __init__(self, variant: PublishedVariant, store: BlobStore) -> None:
        self._pieces = tuple(_pieces(variant.files))
        self._store = store
        self.size = sum(piece.size for piece in self._pieces) + END

    def digest(self) -> Digest:
        """Return the digest of all bytes, reading every file once."""
        state = hashlib.sha256()
        for chunk in self.read(0):
            state.update(chunk)
        return Digest(state.hexdigest())

    def read(self, offset: int) -> Iterator[bytes]:
        """Yield the bytes from an offset on."""
        position = 0
        for piece in self._pieces:
            if position + piece.size > offset:
                yield from self._from(piece, max(0, offset - position))
            position += piece.size
        yield bytes(END - max(0, offset - position))

    def _from(self, piece: _Piece, offset: int) -> Iterator[bytes]:
        if offset < len(piece.head):
            yield piece.head[offset:]
        if piece.file is None:
            return
        inside = max(0, offset - len(piece.head))
        if inside < piece.file.size:
            yield from read_blob(self._store, piece.file.digest, inside, piece.file.size - inside)
        after = padded(piece.file.size) - max(inside, piece.file.size)
        if after > 0:
            yield bytes(after)


def _pieces(files: Sequence[ServedFile]) -> Iterator[_Piece]:
    seen: set[str] = set()
    for file in sorted(files, key=lambda item: item.path):
        parts = file.path.split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            folder = "/".join(parts[:depth])
            if folder not in seen:
                seen.add(folder)
                yield _Piece(_header(f"{folder}/", 0, folder=True))
        yield _Piece(_header(file.path, file.size, folder=False), file)


def _header(path: str, size: int, *, folder: bool) -> bytes:
    info = tarfile.TarInfo(path)
    info.type = tarfile.DIRTYPE if folder else tarfile.REGTYPE
    info.size = size
    info.mode = _FOLDER_MODE if folder else _FILE_MODE
    data = info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")
    if len(data) % BLOCK:
        raise AssertionError("tar headers come in blocks")
    return data
