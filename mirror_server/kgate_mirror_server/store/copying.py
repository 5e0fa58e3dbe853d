"""A new file, written past the page cache while the next bytes for it are read and hashed.

Bytes are read straight into aligned buffers and hashed there; a second thread hands full buffers
to the disk (O_DIRECT, open(2)). So nothing is copied in memory, progress is that of the disk, and
what is served to pods stays in the cache. A file system that refuses this gets plain writes.
Names and places of blobs are the business of `disk`.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol, Self

from kgate_core.errors import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from pathlib import Path

BUFFER: Final = 4 * 1024**2  # bytes that go to the disk at once
BUFFERS: Final = 3  # one is filled, one is written, one waits
_ALIGNED: Final = 4096  # bytes; no disk has larger blocks
_READ: Final = 256 * 1024  # bytes read and hashed at once: they stay in the core's own cache


class Hashing(Protocol):
    """Takes bytes in, such as one of hashlib's; they are overwritten afterwards."""

    def update(self, data: memoryview, /) -> None:
        """Take the next bytes in."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of an open local file."""

    source: BinaryIO
    offset: int
    size: int
    once: bool = False
    """Nobody reads it after this: what was read need not stay in memory."""


class NewFile:
    """A file that did not exist; `close` brings the last bytes onto the disk.

    Every method raises OSError.
    """

    def __init__(self, path: Path, mode: int) -> None:
        """Create it with these permissions, whatever the umask."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        try:
            self._file = os.open(path, flags | os.O_DIRECT, mode)
        except OSError as exc:
            if exc.errno != errno.EINVAL:
                raise
            path.unlink(missing_ok=True)  # some kernels create it all the same
            self._file = os.open(path, flags, mode)
        os.fchmod(self._file, mode)
        self._buffers = [memoryview(mmap.mmap(-1, BUFFER)) for _ in range(BUFFERS)]
        self._current = self._buffers.pop()
        self._filled = 0
        self._position = 0  # in the file, of the current buffer
        self._writing: deque[Future[memoryview]] = deque()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="kgate-disk")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of the file, whatever its state."""
        self._pool.shutdown(cancel_futures=True)
        os.close(self._file)

    def write(self, data: bytes) -> None:
        """Append some bytes."""
        rest = memoryview(data)
        while rest:
            room = self._room()
            count = min(len(room), len(rest))
            room[:count] = rest[:count]
            self._filled += count
            rest = rest[count:]

    def copy(self, piece: Piece, state: Hashing, copied: Callable[[int], object]) -> int:
        """Append a piece, hashing it; returns its bytes, fewer than wanted if its file ends.

        `copied` gets the number of bytes of each step. Raises IntegrityError if the disk that the
        piece lies on cannot be read.
        """
        done = 0
        while done < piece.size:
            room = self._room()
            part = room[: min(len(room), _READ, piece.size - done)]
            try:
                count = os.preadv(piece.source.fileno(), [part], piece.offset + done)
            except OSError as exc:
                raise IntegrityError(f"the source cannot be read ({exc.strerror})") from exc
            if not count:
                break
            state.update(part[:count])
            if piece.once and self._filled + count == BUFFER:
                _forget(piece, done + count)
            self._filled += count
            done += count
            copied(count)
        if piece.once:
            _forget(piece, done)
        return done

    def close(self) -> int:
        """Write what is left, wait until it is on the disk; returns the file's size in bytes."""
        size = self._position + self._filled
        if self._filled:
            whole = -(-self._filled // _ALIGNED) * _ALIGNED
            self._current[self._filled : whole] = bytes(whole - self._filled)
            self._send(whole)
        while self._writing:
            self._writing.popleft().result()
        os.ftruncate(self._file, size)
        os.fsync(self._file)
        return os.fstat(self._file).st_size

    def _room(self) -> memoryview:
        """Return where the next bytes go, never empty."""
        if self._filled == BUFFER:
            self._send(BUFFER)
            self._position += BUFFER
            self._filled = 0
            self._current = self._buffers.pop() if self._buffers else self._written()
        return self._current[self._filled :]

    def _written(self) -> memoryview:
        return self._writing.popleft().result()

    def _send(self, count: int) -> None:
        job = self._pool.submit(self._put, self._current, count, self._position)
        self._writing.append(job)

    def _put(self, buffer: memoryview, count: int, position: int) -> memoryview:
        done = 0
        while done < count:
            try:
                done += os.pwrite(self._file, buffer[done:count], position + done)
            except OSError as exc:
                flags = fcntl.fcntl(self._file, fcntl.F_GETFL)
                if exc.errno != errno.EINVAL or not flags & os.O_DIRECT:
                    raise
                fcntl.fcntl(self._file, fcntl.F_SETFL, flags & ~os.O_DIRECT)
        return buffer


def _forget(piece: Piece, end: int) -> None:
    """Let go of what was read of a piece; only a hint, so that what refuses it goes without."""
    start = max(piece.offset, piece.offset + end - 2 * BUFFER)
    with suppress(OSError):
        os.posix_fadvise(
            piece.source.fileno(), start, piece.offset + end - start, os.POSIX_FADV_DONTNEED
        )
