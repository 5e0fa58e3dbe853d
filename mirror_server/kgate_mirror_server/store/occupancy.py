"""Who uses a store's folder: many who add to it at once, or one who removes from it.

A lock on a file in the folder, held by processes and given back by the kernel when one dies, even
by kill -9. It protects what a run has found in the store and is about to refer to. Serving takes no
lock: it reads what publications name, and those are never removed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from kgate_core.errors import Conflict, KgateError
from kgate_mirror_server.store.disk import DiskStore

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from kgate_core.digest import Digest
    from kgate_mirror_server.catalog.claims import Claims

FILE_NAME: Final = ".in-use"
WAIT: Final = 10.0  # seconds that somebody who wants to be alone waits for others to finish
_STEP: Final = 0.1  # seconds between two attempts
_UNWRITABLE: Final = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})


class Occupancy:
    """This process's place in a store's folder; closing it, or ending, gives it back."""

    def __init__(self, root: Path) -> None:
        """Join the others; raises KgateError if the folder refuses."""
        self._root = root
        self._descriptor = _open(root / FILE_NAME)
        if self._descriptor is not None:
            fcntl.flock(self._descriptor, fcntl.LOCK_SH)

    @contextmanager
    def alone(self, wait: float = WAIT) -> Iterator[None]:
        """Be the only one in the folder meanwhile; raises Conflict after `wait` seconds."""
        if self._descriptor is None:
            raise KgateError(
                f"{self._root}: cannot be written", hint="nothing can be removed from it either"
            )
        until = time.monotonic() + wait
        while not _try(self._descriptor):
            if time.monotonic() >= until:
                fcntl.flock(self._descriptor, fcntl.LOCK_SH)
                raise Conflict(
                    f"another command is using the store {self._root}",
                    hint="a sync or an import runs: try again when it is done",
                )
            time.sleep(_STEP)
        try:
            yield
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_SH)

    def close(self) -> None:
        """Leave."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __del__(self) -> None:
        """Leave also where nobody said so."""
        self.close()


class OccupiedStore(DiskStore):
    """A store in a folder that this process uses until it is closed."""

    def __init__(self, root: Path, claims: Claims | None = None) -> None:
        """Use a folder; with `claims`, of those who put the same blob at once one reads it."""
        super().__init__(root)
        self._occupancy = Occupancy(root)
        self._claims = claims

    def put(self, digest: Digest, size: int, chunks: Iterable[bytes]) -> None:
        """Store a blob as `DiskStore.put` does; who comes second finds it there."""
        if self._claims is None or isinstance(chunks, (list, tuple)) or self.has(digest):
            super().put(digest, size, chunks)
            return
        with self._claims.hold(f"blob:{digest}"):
            super().put(digest, size, chunks)

    def alone(self, wait: float = WAIT) -> AbstractContextManager[None]:
        """Be the only one that uses it meanwhile; raises Conflict after `wait` seconds."""
        return self._occupancy.alone(wait)

    def close(self) -> None:
        """Let others remove from it."""
        self._occupancy.close()


def _open(path: Path) -> int | None:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        # Where nothing can be written nothing can be removed: there is nobody to keep out.
        if exc.errno in _UNWRITABLE:
            return None
        raise KgateError(f"{path}: cannot be opened ({exc.strerror})") from exc


def _try(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
