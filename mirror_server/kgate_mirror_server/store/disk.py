"""Blobs on a local disk, each in a read-only file named by its sha256.

Layout: `blobs/sha256/ab/<hex>`; what is being written lies under `tmp/` on the same file system
and is renamed when its size and digest have been checked and its bytes are on the disk. A crash
leaves a temporary file at most. Deciding what may be deleted is not done here, and a blob that
changes after it was stored is found by `scrub` only: who serves blobs looks at them himself.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, BinaryIO, Final

from kgate_core.digest import Digest
from kgate_core.errors import IntegrityError, InvalidInput, KgateError, NotFound
from kgate_mirror_server.store.copying import NewFile
from kgate_mirror_server.store.incoming import FOLDER, alone_with, complete
from kgate_mirror_server.store.tending import Seen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import timedelta
    from pathlib import Path

    from kgate_mirror_server.store.copying import Piece

ASIDE: Final = "damaged"
READ_CHUNK: Final = 1024 * 1024  # bytes per read while hashing a stored blob
_BLOB_MODE: Final = 0o444
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@dataclass(frozen=True, slots=True)
class Damage:
    """A stored blob whose bytes are not those of its name."""

    digest: Digest
    found: Digest
    size: int
    """Bytes found on the disk."""


class DiskStore:
    """A BlobStore in a folder. Several processes may use one folder at the same time."""

    def __init__(self, root: Path) -> None:
        self._blobs = root / "blobs" / "sha256"
        self._tmp = root / "tmp"
        self._incoming = root / FOLDER
        with _translated(f"the store {root} cannot be created"):
            self._blobs.mkdir(parents=True, exist_ok=True)
            self._tmp.mkdir(parents=True, exist_ok=True)

    def has(self, digest: Digest) -> bool:
        """Return whether the blob is there; its bytes are not read."""
        return self._place(digest).is_file()

    def put(self, digest: Digest, size: int, chunks: Iterable[bytes]) -> None:
        """Store a blob of `size` bytes; a blob that is there already ends the call unread.

        Raises IntegrityError if the chunks are not what was promised (reading stops at the first
        byte too many) and KgateError if the disk cannot take them. Nothing is left behind then.
        """
        if not self._place(digest).is_file():
            with self._arriving(digest) as part:
                _write_checked(part, digest, size, chunks)

    def resume(self, digest: Digest, size: int, read: Callable[[int], Iterable[bytes]]) -> None:
        """Store a blob of which a run that was killed may have brought a part; raises as `put`.

        `read` gives the bytes from an offset on. What came is kept when it fails.
        """
        if self._place(digest).is_file():
            return
        part = self._incoming / digest.hex
        with _translated(f"{digest} cannot be stored"), alone_with(part) as descriptor:
            if descriptor is not None:
                complete(descriptor, digest, size, read)
                os.fchmod(descriptor, _BLOB_MODE)
                target = self._place(digest)
                target.parent.mkdir(exist_ok=True)
                _sync_folder(self._blobs)
                part.replace(target)
                _sync_folder(target.parent)
                return
        self.put(digest, size, read(0))  # another process brings it in, too

    def put_pieces(
        self,
        digest: Digest,
        size: int,
        pieces: Iterable[Piece],
        copied: Callable[[int], object] = lambda _count: None,
    ) -> None:
        """Store a blob that lies in pieces of open local files; raises as `put` does.

        Large blobs arrive so faster than by `put`, and just as strictly: what is hashed is what the
        disk gets. `copied` gets the number of bytes of each step.
        """
        if not self._place(digest).is_file():
            with self._arriving(digest) as part:
                _copy_checked(part, digest, size, pieces, copied)

    @contextmanager
    def _arriving(self, digest: Digest) -> Iterator[Path]:
        """Give a name for a blob on its way; without an error it takes its place at the end."""
        target = self._place(digest)
        with _translated(f"{digest} cannot be stored"):
            target.parent.mkdir(exist_ok=True)
            _sync_folder(self._blobs)
        part = self._tmp / f"{digest.hex}.{os.getpid()}.{secrets.token_hex(8)}"
        try:
            yield part
            with _translated(f"{digest} cannot be stored"):
                part.replace(target)
                _sync_folder(target.parent)
        finally:
            part.unlink(missing_ok=True)

    def open(self, digest: Digest) -> BinaryIO:
        """Open a blob for reading; raises NotFound."""
        path = self._place(digest)
        try:
            return path.open("rb")
        except FileNotFoundError as exc:
            raise NotFound(f"the store has no blob {digest}") from exc
        except OSError as exc:
            raise _error(f"the blob {digest} cannot be read", exc) from exc

    def path(self, digest: Digest) -> Path:
        """Return the blob's own read-only file; raises NotFound."""
        path = self._place(digest)
        if not path.is_file():
            raise NotFound(f"the store has no blob {digest}")
        return path

    def seen(self, digest: Digest) -> Seen:
        """Return what the file system says about a blob; raises NotFound."""
        try:
            found = self._place(digest).stat()
        except FileNotFoundError as exc:
            raise NotFound(f"the store has no blob {digest}") from exc
        except OSError as exc:
            raise _error(f"the blob {digest} cannot be looked at", exc) from exc
        changed = datetime.fromtimestamp(found.st_mtime, UTC)
        return Seen(found.st_size, changed, f"{found.st_ino}-{found.st_mtime_ns}")

    def chunks(self, digest: Digest) -> Iterator[bytes]:
        """Yield a blob's bytes; raises NotFound."""
        with self.open(digest) as file, _translated(f"the blob {digest} cannot be read"):
            while chunk := file.read(READ_CHUNK):
                yield chunk

    def digests(self) -> Iterator[Digest]:
        """Yield every stored digest in order; files of other names are passed over."""
        for folder in sorted(self._blobs.iterdir()):
            for path in sorted(folder.iterdir()):
                with suppress(InvalidInput):
                    yield Digest(path.name)

    def scrub(self) -> Iterator[Damage]:
        """Read and hash every blob, yielding the damaged ones; what to do with them is not ours."""
        for digest in self.digests():
            state, size = hashlib.sha256(), 0
            for chunk in self.chunks(digest):
                state.update(chunk)
                size += len(chunk)
            if (found := Digest(state.hexdigest())) != digest:
                yield Damage(digest, found, size)

    def remove(self, digest: Digest) -> None:
        """Delete a blob if it is there, so that a damaged or unreferenced one can be put anew."""
        with _translated(f"the blob {digest} cannot be removed"):
            self._place(digest).unlink(missing_ok=True)

    def set_aside(self, digest: Digest) -> str:
        """Move a damaged blob to `damaged/` in the store's folder; returns where it is."""
        place = self._place(digest)
        target = self._blobs.parents[1] / ASIDE / place.name
        try:
            target.parent.mkdir(exist_ok=True)
            place.replace(target)
        except FileNotFoundError as exc:
            raise NotFound(f"the store has no blob {digest}") from exc
        except OSError as exc:
            raise KgateError(
                f"the damaged blob {digest} cannot be set aside ({exc.strerror})",
                hint="it is not served; check the disk",
            ) from exc
        return str(target)

    def sweep(self, *, now: datetime, older_than: timedelta) -> int:
        """Delete temporary files that nobody wrote to for so long; returns how many."""
        removed = 0
        limit = (now - older_than).timestamp()
        incoming = self._incoming.iterdir() if self._incoming.exists() else ()
        for path in (*self._tmp.iterdir(), *incoming):
            with suppress(FileNotFoundError), _translated(f"{path} cannot be removed"):
                if path.stat().st_mtime < limit:
                    path.unlink()
                    removed += 1
        return removed

    def _place(self, digest: Digest) -> Path:
        return self._blobs / digest.hex[:2] / digest.hex


def _write_checked(part: Path, digest: Digest, size: int, chunks: Iterable[bytes]) -> None:
    state, written = hashlib.sha256(), 0
    with _translated(f"{digest} cannot be stored"):
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, _BLOB_MODE)
    with os.fdopen(descriptor, "wb") as file:
        for chunk in chunks:
            written += len(chunk)
            if written > size:
                raise IntegrityError(f"{digest}: more than the {size} bytes promised")
            state.update(chunk)
            with _translated(f"{digest} cannot be stored"):
                file.write(chunk)
        if written != size:
            raise IntegrityError(f"{digest}: {written} bytes came of the {size} promised")
        if (found := state.hexdigest()) != digest.hex:
            raise IntegrityError(f"{digest} was promised, the bytes are sha256:{found}")
        with _translated(f"{digest} cannot be stored"):
            file.flush()
            os.fchmod(file.fileno(), _BLOB_MODE)  # whatever the umask was
            os.fsync(file.fileno())


def _copy_checked(
    part: Path,
    digest: Digest,
    size: int,
    pieces: Iterable[Piece],
    copied: Callable[[int], object],
) -> None:
    state = hashlib.sha256()
    with _translated(f"{digest} cannot be stored"), NewFile(part, _BLOB_MODE) as file:
        for piece in pieces:
            if file.copy(piece, state, copied) < piece.size:
                break
        written = file.close()
    if written != size:
        raise IntegrityError(f"{digest}: {written} bytes came of the {size} promised")
    if (found := state.hexdigest()) != digest.hex:
        raise IntegrityError(f"{digest} was promised, the bytes are sha256:{found}")


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise _error(what, exc) from exc


def _error(what: str, exc: OSError) -> KgateError:
    if exc.errno in _FULL:
        hint = "the disk or quota is full: free space with `kgate gc`, or give the store more"
    elif exc.errno == errno.EROFS:
        hint = "the disk is read-only: serving goes on, storing cannot"
    else:
        hint = "check that this user may write to the store's folder"
    return KgateError(f"{what}: {exc.strerror or exc}", hint=hint)
