"""Blobs in this process's memory, for tests of what uses a store; nothing survives it."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from kgate_core.digest import Digest
from kgate_core.errors import IntegrityError, NotFound

if TYPE_CHECKING:
    from collections.abc import Iterable


class MemoryStore:
    """A BlobStore over a dictionary; `path` writes the blob to a private temporary folder."""

    def __init__(self) -> None:
        self._blobs: dict[Digest, bytes] = {}
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def has(self, digest: Digest) -> bool:
        """Return whether the blob is there."""
        return digest in self._blobs

    def put(self, digest: Digest, size: int, chunks: Iterable[bytes]) -> None:
        """Store a blob; raises IntegrityError if the chunks are not what was promised."""
        if digest in self._blobs:
            return
        data = bytearray()
        for chunk in chunks:
            data += chunk
            if len(data) > size:
                raise IntegrityError(f"{digest}: more than the {size} bytes promised")
        if len(data) != size:
            raise IntegrityError(f"{digest}: {len(data)} bytes came of the {size} promised")
        if (found := Digest.of(data)) != digest:
            raise IntegrityError(f"{digest} was promised, the bytes are {found}")
        self._blobs[digest] = bytes(data)

    def open(self, digest: Digest) -> BinaryIO:
        """Open a blob for reading; raises NotFound."""
        try:
            return io.BytesIO(self._blobs[digest])
        except KeyError as exc:
            raise NotFound(f"the store has no blob {digest}") from exc

    def path(self, digest: Digest) -> Path:
        """Return a file with the blob's bytes; raises NotFound."""
        with self.open(digest) as file:
            data = file.read()
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="kgate-blobs-")
        target = Path(self._folder.name) / digest.hex
        target.write_bytes(data)
        return target
