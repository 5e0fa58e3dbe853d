"""Blobs on their way in that outlive the process: what came stays, and the rest is asked for later.

One file for each expected digest, beside the blobs. It is believed no more than the network: the
whole of it is hashed from its first byte, and one that is not what was promised is thrown away.
One process at a time writes to it. Small blobs are not worth it; they use `DiskStore.put`.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

from kgate_core.errors import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from kgate_core.digest import Digest

FOLDER: Final = "incoming"
_CHUNK: Final = 1024 * 1024  # bytes
_MODE: Final = 0o600


@runtime_checkable
class Resuming(Protocol):
    """A store that keeps what came of a large blob before a process ended."""

    def resume(self, digest: Digest, size: int, read: Callable[[int], Iterable[bytes]]) -> None:
        """Store a blob, asking `read` for its bytes from an offset on; raises as `put` does."""
        ...


@contextmanager
def alone_with(path: Path) -> Iterator[int | None]:
    """Open a partial file for this process alone; None if another one writes to it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, _MODE)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            # Whoever held it may have renamed or removed it meanwhile.
            same = path.exists() and os.fstat(descriptor).st_ino == path.stat().st_ino
            yield descriptor if same else None
    finally:
        os.close(descriptor)


def complete(
    descriptor: int, digest: Digest, size: int, read: Callable[[int], Iterable[bytes]]
) -> None:
    """Bring a partial file to its end and to the disk.

    Raises IntegrityError if it is not what was promised; the file is empty then.
    """
    state = hashlib.sha256()
    start = _known(descriptor, size, state)
    try:
        _append(descriptor, digest, size, read, start, state)
    except IntegrityError:
        os.ftruncate(descriptor, 0)
        if not start:
            raise
        # The bytes of the run before may be the bad ones: once more, from the first byte on.
        state = hashlib.sha256()
        try:
            _append(descriptor, digest, size, read, 0, state)
        except IntegrityError:
            os.ftruncate(descriptor, 0)
            raise
    os.fsync(descriptor)


def _known(descriptor: int, size: int, state: hashlib._Hash) -> int:
    """Hash what is there; return how much. More than was promised is nothing."""
    if os.fstat(descriptor).st_size > size:
        os.ftruncate(descriptor, 0)
    os.lseek(descriptor, 0, os.SEEK_SET)
    known = 0
    while chunk := os.read(descriptor, _CHUNK):
        state.update(chunk)
        known += len(chunk)
    return known


def _append(
    descriptor: int,
    digest: Digest,
    size: int,
    read: Callable[[int], Iterable[bytes]],
    start: int,
    state: hashlib._Hash,
) -> None:
    os.lseek(descriptor, start, os.SEEK_SET)
    written = start
    for chunk in read(start) if start < size else ():
        written += len(chunk)
        if written > size:
            raise IntegrityError(f"{digest}: more than the {size} bytes promised")
        state.update(chunk)
        rest = memoryview(chunk)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    if written != size:
        raise IntegrityError(f"{digest}: {written} bytes came of the {size} promised")
    if (found := state.hexdigest()) != digest.hex:
        raise IntegrityError(f"{digest} was promised, the bytes are sha256:{found}")
