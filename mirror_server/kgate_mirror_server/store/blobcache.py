"""Local copies of an object store's blobs: read-only files by digest, no more than so many bytes.

A copy's size and digest are checked before it gets its name. Several processes may share a folder:
of those that want the same copy one fetches it. Those that nobody asked for longest go first; one
that came within the last minute stays even over the limit, for somebody may be about to open it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from kgate_core.errors import IntegrityError, KgateError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from kgate_core.digest import Digest

YOUNG: Final = 60.0  # seconds in which a new copy is not removed
_STRIPES: Final = 64  # lock files; fetches of blobs that share one wait for each other
_MODE: Final = 0o444


class BlobCache:
    """A folder of copies; every method raises KgateError if the disk refuses."""

    def __init__(self, root: Path, limit: int) -> None:
        """Use a folder for up to `limit` bytes."""
        self._root = root
        self._limit = limit
        self._used: dict[str, float] = {}
        self._guard = threading.Lock()
        with _translated(root):
            for name in ("tmp", "locks"):
                (root / name).mkdir(parents=True, exist_ok=True)

    def find(self, digest: Digest) -> Path | None:
        """Return a copy's file, or None."""
        path = self._place(digest.hex)
        if not path.is_file():
            return None
        self._used[digest.hex] = time.time()
        return path

    def fill(self, digest: Digest, size: int, chunks: Iterable[bytes]) -> Path:
        """Return a copy's file, written from these chunks if there is none; else they stay unread.

        Raises IntegrityError if they are not what was promised.
        """
        with self._alone(digest):
            return self.find(digest) or self._enter(digest, self.write(digest, size, chunks))

    def write(self, digest: Digest, size: int, chunks: Iterable[bytes]) -> Path:
        """Write chunks to a temporary file and check them; raises IntegrityError."""
        part = self._root / "tmp" / f"{digest.hex}.{os.getpid()}.{secrets.token_hex(8)}"
        try:
            _write_checked(part, digest, size, chunks)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        return part

    def enter(self, digest: Digest, part: Path) -> Path:
        """Give a checked temporary file its name; returns the copy's file."""
        with self._alone(digest):
            return self._enter(digest, part)

    def drop(self, digest: Digest) -> None:
        """Remove a copy if there is one."""
        with _translated(self._root):
            self._place(digest.hex).unlink(missing_ok=True)

    def sweep(self, *, older_than: float) -> int:
        """Remove temporary files that are so many seconds old; returns how many."""
        removed, limit = 0, time.time() - older_than
        for path in (self._root / "tmp").iterdir():
            with suppress(FileNotFoundError), _translated(path):
                if path.stat().st_mtime < limit:
                    path.unlink()
                    removed += 1
        return removed

    def _enter(self, digest: Digest, part: Path) -> Path:
        target = self._place(digest.hex)
        with _translated(self._root):
            target.parent.mkdir(parents=True, exist_ok=True)
            part.replace(target)
        self._used[digest.hex] = time.time()
        self._shrink(keep=digest.hex)
        return target

    def _shrink(self, keep: str) -> None:
        with self._guard, _translated(self._root):
            found = []
            for path in (self._root / "blobs").glob("sha256/*/*"):
                with suppress(FileNotFoundError):
                    seen = path.stat()
                    if path.name != keep:
                        used = max(seen.st_mtime, self._used.get(path.name, 0.0))
                        found.append((used, seen.st_mtime, seen.st_size, path.name))
            total = sum(size for *_, size, _ in found)
            total += self._place(keep).stat().st_size
            for _, made, size, name in sorted(found):
                if total <= self._limit:
                    return
                if time.time() - made >= YOUNG:
                    self._place(name).unlink(missing_ok=True)
                    self._used.pop(name, None)
                    total -= size

    def _place(self, name: str) -> Path:
        # As in a store's folder: nginx finds both alike.
        return self._root / "blobs" / "sha256" / name[:2] / name

    @contextmanager
    def _alone(self, digest: Digest) -> Iterator[None]:
        stripe = int(digest.hex[:8], 16) % _STRIPES
        with _translated(self._root):
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            descriptor = os.open(self._root / "locks" / f"{stripe:02x}", flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _write_checked(part: Path, digest: Digest, size: int, chunks: Iterable[bytes]) -> None:
    state, written = hashlib.sha256(), 0
    with _translated(part):
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, _MODE)
    with os.fdopen(descriptor, "wb") as file:
        for chunk in chunks:
            written += len(chunk)
            if written > size:
                raise IntegrityError(f"{digest}: more than the {size} bytes promised")
            state.update(chunk)
            with _translated(part):
                file.write(chunk)
        if written != size:
            raise IntegrityError(f"{digest}: {written} bytes came of the {size} promised")
        if (found := state.hexdigest()) != digest.hex:
            raise IntegrityError(f"{digest} was promised, the bytes are sha256:{found}")
        with _translated(part):
            file.flush()
            os.fchmod(file.fileno(), _MODE)


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise KgateError(
            f"{path}: local copies cannot be kept: {exc.strerror or exc}",
            hint="object_store.cache in kgate.yaml names a folder that this user may write to",
        ) from exc
