"""Blobs in an object store, each an object named by its sha256; local copies where they are wanted.

Keys: `blobs/sha256/ab/<hex>` below the prefix, as in a folder. What is put is checked in a local
file first, so that no unverified byte ever has a blob's key; an upload appears as a whole or not at
all. An object that changed later is found when it is copied or read again: a copy is checked on its
way in. Deciding what may be deleted is not done here.
"""

from __future__ import annotations

import hashlib
import io
import time
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO, Final

from kgate_core.digest import Digest
from kgate_core.errors import IntegrityError, InvalidInput, KgateError, NotFound

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from contextlib import AbstractContextManager
    from datetime import datetime, timedelta
    from pathlib import Path

    from kgate_mirror_server.catalog.claims import Claims
    from kgate_mirror_server.store.blobcache import BlobCache
    from kgate_mirror_server.store.remote import Remote
    from kgate_mirror_server.store.tending import Seen

SMALL: Final = 8 * 1024**2  # bytes; evidence and signatures, wanted again at every start
SEEN_FOR: Final = 60.0  # seconds for which what the store said about an object is remembered
_BLOBS: Final = "blobs/sha256/"
_ASIDE: Final = "damaged/"
_USE: Final = "store"
WAIT: Final = 10.0  # seconds that somebody who wants to be alone waits for others to finish


class ObjectStore:
    """A BlobStore in a bucket. Any number of machines may use it at the same time."""

    def __init__(
        self,
        remote: Remote,
        cache: BlobCache,
        claims: Claims | None = None,
        *,
        stream: bool = False,
    ) -> None:
        """Use a bucket; with `claims`, of those who put the same blob at once one reads it."""
        self._remote = remote
        self._cache = cache
        self._claims = claims
        self._used = None if claims is None else claims.share(_USE)
        self._seen: dict[Digest, tuple[float, Seen]] = {}
        self.streams = stream

    def has(self, digest: Digest) -> bool:
        """Return whether the blob is there; its bytes are not read."""
        try:
            self._seen[digest] = (time.monotonic(), self._remote.head(_key(digest)))
        except NotFound:
            self._seen.pop(digest, None)
            return False
        return True

    def put(self, digest: Digest, size: int, chunks: Iterable[bytes]) -> None:
        """Store a blob of `size` bytes; a blob that is there already ends the call unread.

        Raises IntegrityError if the chunks are not what was promised, KgateError if the local disk
        and UpstreamError if the store cannot take them. Nothing is left behind then.
        """
        if self.has(digest):
            return
        if self._claims is None or isinstance(chunks, (list, tuple)):
            self._put(digest, size, chunks)
            return
        with self._claims.hold(f"blob:{digest}"):
            if not self.has(digest):
                self._put(digest, size, chunks)

    def _put(self, digest: Digest, size: int, chunks: Iterable[bytes]) -> None:
        part = self._cache.write(digest, size, chunks)
        try:
            self._remote.put_file(_key(digest), part)
            seen = self._remote.head(_key(digest))
            if seen.size != size:
                raise IntegrityError(f"{digest}: the store kept {seen.size} of {size} bytes")
            # Whoever stored it mostly reads it next: the scanner wants a file.
            self._cache.enter(digest, part)
        finally:
            part.unlink(missing_ok=True)
        self._seen[digest] = (time.monotonic(), seen)

    def open(self, digest: Digest) -> BinaryIO:
        """Open a blob for reading, once and forwards; raises NotFound.

        What is read is what the store has: readers compare digests themselves.
        """
        path = self._cache.find(digest)
        if path is None and self.seen(digest).size <= SMALL:
            with suppress(IntegrityError):  # then as it is: readers see for themselves
                path = self.path(digest)
        if path is not None:
            with suppress(OSError):
                return path.open("rb")
        chunks = self._remote.stream(_key(digest))
        first = next(chunks, b"")  # asked now, so that what is missing is said now
        return io.BufferedReader(_Reading(first, chunks), 1024**2)

    def path(self, digest: Digest) -> Path:
        """Return a checked local copy, fetched if need be; raises NotFound, IntegrityError."""
        if (path := self._cache.find(digest)) is not None:
            return path
        seen = self.seen(digest)
        try:
            return self._cache.fill(digest, seen.size, self._remote.stream(_key(digest)))
        except NotFound:
            self._seen.pop(digest, None)
            raise

    def local(self, digest: Digest) -> Path | None:
        """Return the local copy if there is one."""
        return self._cache.find(digest)

    def forget(self, digest: Digest) -> None:
        """Drop the local copy, and what the store said about the object."""
        self._seen.pop(digest, None)
        self._cache.drop(digest)

    def read(self, digest: Digest, start: int, size: int, version: str) -> bytes:
        """Return bytes of this version of a blob's object; raises NotFound, Conflict."""
        return self._remote.read(_key(digest), start, size, version)

    def seen(self, digest: Digest) -> Seen:
        """Return what the store says about a blob, a minute old at most; raises NotFound."""
        known = self._seen.get(digest)
        if known is None or time.monotonic() - known[0] > SEEN_FOR:
            if not self.has(digest):
                raise NotFound(f"the store has no blob {digest}")
            known = self._seen[digest]
        return known[1]

    def digests(self) -> Iterator[Digest]:
        """Yield every stored digest; objects of other names are passed over."""
        now = time.monotonic()
        for key, seen in self._remote.keys(_BLOBS):
            with suppress(InvalidInput):
                digest = Digest(key.rpartition("/")[2])
                self._seen[digest] = (now, seen)
                yield digest

    def chunks(self, digest: Digest) -> Iterator[bytes]:
        """Yield a blob's bytes as the store has them, never from a copy; raises NotFound."""
        return self._remote.stream(_key(digest))

    def remove(self, digest: Digest) -> None:
        """Delete a blob if it is there, so that a damaged or unreferenced one can be put anew."""
        self._remote.delete(_key(digest))
        self.forget(digest)

    def set_aside(self, digest: Digest) -> str:
        """Move a damaged blob out of the way; returns where it is."""
        target = f"{_ASIDE}{digest.hex}"
        self._remote.move(_key(digest), target)
        self.forget(digest)
        return f"{self._remote.name}/{target}"

    def sweep(self, *, now: datetime, older_than: timedelta) -> int:  # noqa: ARG002  # as a folder's
        """Delete old temporary files of the local cache; returns how many.

        Parts of broken uploads are invisible here: the bucket's own lifecycle rule ends them.
        """
        return self._cache.sweep(older_than=older_than.total_seconds())

    def alone(self, wait: float = WAIT) -> AbstractContextManager[None]:
        """Be the only one that uses it meanwhile; raises Conflict after `wait` seconds."""
        if self._used is None:
            raise KgateError("this use of the object store may remove nothing")
        return self._used.alone(wait)

    def close(self) -> None:
        """Let others remove from it."""
        if self._used is not None:
            self._used.close()


class _Reading(io.RawIOBase):
    """Chunks that arrive, as a file."""

    def __init__(self, first: bytes, chunks: Iterator[bytes]) -> None:
        self._rest = memoryview(first)
        self._chunks = chunks

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # typeshed wants the private Buffer
        if not self._rest:
            self._rest = memoryview(next(self._chunks, b""))
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def hashed(chunks: Iterable[bytes]) -> tuple[Digest, int]:
    """Return the digest of chunks and how many bytes they are."""
    state, size = hashlib.sha256(), 0
    for chunk in chunks:
        state.update(chunk)
        size += len(chunk)
    return Digest(state.hexdigest()), size


def _key(digest: Digest) -> str:
    return f"{_BLOBS}{digest.hex[:2]}/{digest.hex}"
