"""Looks at a stored blob before it is served, so that one changed on the disk is not.

A blob is hashed when this process first uses it, and again whenever its file looks different from
then (inode, size, times). Between two looks a fault of the disk itself goes unseen: `kgate scrub`
and the client's own verification find that. Nothing is repaired here.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, NoReturn

import structlog

from kgate_core.digest import Digest
from kgate_core.errors import Conflict, IntegrityError, KgateError, NotFound, UpstreamError
from kgate_mirror_server.store.objects import ObjectStore, hashed

if TYPE_CHECKING:
    from pathlib import Path

    from kgate_mirror_server.ports import BlobStore

_CHUNK: Final = 1024 * 1024  # bytes per read while hashing
_log: Final = structlog.get_logger(__name__)

Mark = tuple[int, int, int, int, int | str]
"""What a file looked like: device, inode, size, mtime and ctime in nanoseconds.

Of an object without a local copy: zeros, its size, its time and its entity tag.
"""


@dataclass(frozen=True, slots=True)
class Streamed:
    """One version of a blob in an object store whose bytes were checked."""

    store: ObjectStore
    digest: Digest
    version: str

    def read(self, start: int, size: int) -> bytes:
        """Return bytes of it; raises IntegrityError if it is another one by now."""
        try:
            return self.store.read(self.digest, start, size, self.version)
        except (Conflict, NotFound) as exc:
            self.store.forget(self.digest)
            raise IntegrityError(f"the blob {self.digest} changed while it was sent") from exc


class BlobGuard:
    """Checked access to a store's files; safe to use from many threads."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store
        self._good: dict[Digest, Mark] = {}
        self._bad: dict[Digest, Mark | None] = {}
        self._locks: dict[Digest, threading.Lock] = {}
        self._guard = threading.Lock()
        self._news = False

    def known(self, digest: Digest, size: int) -> Path | None:
        """Return the blob's file if it was checked and looks unchanged, without reading it."""
        try:
            path = self._local(digest)
            if path is None:
                return None
            mark = _mark(path)
        except (KgateError, OSError):
            return None
        return path if mark[2] == size and self._good.get(digest) == mark else None

    def check(self, digest: Digest, size: int) -> Path:
        """Return the blob's file after making sure of its bytes; hashes it at most once.

        Raises IntegrityError if the bytes are not those of the digest, NotFound if it is gone.
        """
        if path := self.known(digest, size):
            return path
        with self._guard:
            lock = self._locks.setdefault(digest, threading.Lock())
        try:
            with lock:
                return self.known(digest, size) or self._read(digest, size)
        finally:
            with self._guard:
                self._locks.pop(digest, None)

    def check_large(self, digest: Digest, size: int) -> Path | Streamed:
        """Return what a large blob can be sent from; raises as `check` does.

        Where local copies are not wanted the object is read once to be checked, then in ranges.
        """
        store = self._store
        if not isinstance(store, ObjectStore) or not store.streams or store.local(digest):
            return self.check(digest, size)
        mark = self._mark(digest)
        if self._good.get(digest) != mark or mark[2] != size:
            found, count = hashed(store.chunks(digest))
            if (found, count) != (digest, size) or self._mark(digest) != mark:
                self._refuse(digest, mark, found)
            self._good[digest] = mark
            self._bad.pop(digest, None)
        return Streamed(store, digest, str(mark[4]))

    def look(self, digest: Digest, size: int) -> str | None:
        """Say what is wrong with a blob as far as its file's status tells; None if nothing."""
        try:
            mark = self._now(digest)
        except UpstreamError:
            return None  # nothing is known against it; whoever asks for its bytes hears more
        if mark is None:
            self._bad[digest] = None
            return f"the blob {digest} is missing"
        if mark[2] != size:
            self._bad[digest] = mark
            return f"the blob {digest} has {mark[2]} bytes instead of {size}"
        if self._bad.get(digest) == mark:
            return f"the blob {digest} is damaged"
        self._bad.pop(digest, None)
        return None

    def changed(self) -> bool:
        """Return whether `check` found a new bad blob, or a bad one looks different now."""
        news, self._news = self._news, False
        try:
            return news or any(
                self._now(digest) != before for digest, before in list(self._bad.items())
            )
        except UpstreamError:
            return news

    def distrust(self, digest: Digest) -> None:
        """Forget that a blob was good, because somebody who read it says otherwise."""
        self._good.pop(digest, None)
        self._note(digest, self._now(digest))

    @property
    def troubled(self) -> int:
        """How many blobs are missing or damaged as far as is known."""
        return len(self._bad)

    def _now(self, digest: Digest) -> Mark | None:
        try:
            return self._mark(digest)
        except (NotFound, OSError):
            return None

    def _local(self, digest: Digest) -> Path | None:
        store = self._store
        return store.local(digest) if isinstance(store, ObjectStore) else store.path(digest)

    def _mark(self, digest: Digest) -> Mark:
        store = self._store
        if not isinstance(store, ObjectStore):
            return _mark(store.path(digest))
        if (path := store.local(digest)) is not None:
            return _mark(path)
        seen = store.seen(digest)
        return (0, 0, seen.size, int(seen.changed.timestamp() * 10**9), seen.version)

    def _note(self, digest: Digest, mark: Mark | None) -> None:
        if digest not in self._bad or self._bad[digest] != mark:
            self._bad[digest] = mark
            self._news = True

    def _read(self, digest: Digest, size: int) -> Path:
        try:
            path = self._store.path(digest)
            mark = _mark(path)
            with path.open("rb") as file:
                found = Digest.of_chunks(iter(partial(file.read, _CHUNK), b""))
            still = _mark(path)
        except (NotFound, FileNotFoundError) as exc:
            self._note(digest, None)
            _log.error("blob.missing", digest=str(digest))
            raise NotFound(f"the store has no blob {digest}") from exc
        except OSError as exc:
            raise IntegrityError(f"the blob {digest} cannot be read: {exc.strerror}") from exc
        except IntegrityError:
            # Found while it was copied here: the object in the store is another one.
            self._note(digest, self._now(digest))
            _log.error("blob.damaged", digest=str(digest))
            raise
        if found != digest or mark != still or mark[2] != size:
            self._refuse(digest, mark, found)
        self._good[digest] = mark
        self._bad.pop(digest, None)
        return path

    def _refuse(self, digest: Digest, mark: Mark, found: Digest) -> NoReturn:
        self._good.pop(digest, None)
        self._note(digest, mark)
        if isinstance(self._store, ObjectStore):
            self._store.forget(digest)
        _log.error("blob.damaged", digest=str(digest), found=str(found))
        raise IntegrityError(
            f"the blob {digest} is not what was stored",
            hint="run `kgate scrub`, and look after the disk and who may write to it",
        )


def _mark(path: Path) -> Mark:
    seen = path.stat()
    return (seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns)
