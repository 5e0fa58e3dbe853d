"""The pod's own cache of documents: small files under one directory, replaced atomically.

Where that directory is missing or read-only, what is written lives on in this process. Nothing
read from here is trusted because it is here: signatures and digests are checked by the readers.
"""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

MAX_DOCUMENT: Final = 32 * 1024**2  # bytes; attestations of 20,000 files stay below


class DocumentStore:
    """Bytes by relative name, on disk where possible and in memory otherwise."""

    def __init__(self, root: Path | None) -> None:
        self.root = root
        self._memory: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def renew_lock(self) -> None:
        """Start with a free lock, after a fork."""
        self._lock = threading.Lock()

    def read(self, name: str) -> bytes | None:
        """Return the document, or None if there is none (or it cannot be read)."""
        with self._lock:
            if name in self._memory:
                return self._memory[name]
        if self.root is None:
            return None
        try:
            with (self.root / name).open("rb") as stream:
                data = stream.read(MAX_DOCUMENT + 1)
        except OSError:
            return None
        return data if len(data) <= MAX_DOCUMENT else None

    def write(self, name: str, data: bytes) -> None:
        """Keep the document; a directory that cannot be written is no error."""
        if self.root is not None and self._write_file(self.root / name, data):
            with self._lock:
                self._memory.pop(name, None)
            return
        with self._lock:
            self._memory[name] = data

    @staticmethod
    def _write_file(path: Path, data: bytes) -> bool:
        temporary = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("xb") as stream:
                stream.write(data)
            temporary.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()
            return False
        return True
