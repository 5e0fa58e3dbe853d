"""Copies a variant into a private read-only directory and says exactly what was copied.

Every byte that will run is read once from where it lies, digested and written to the copy in one
pass; the manifest describes the bytes written. Bytecode is left behind. Whether these files may
run is not decided here: the caller compares the manifest and then keeps or discards the copy.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kgate_core.digest import Digest
from kgate_core.errors import IntegrityError, InvalidInput
from kgate_core.manifest import MAX_FILES, FileEntry, Manifest, check_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MAX_DEPTH: Final = 32  # directories below the variant
MAX_TOTAL: Final = 64 * 1024**3  # bytes in one variant
CHUNK: Final = 1024**2  # bytes read, digested and written at a time
WORKERS: Final = min(8, os.cpu_count() or 1)  # hashlib and file system calls release the GIL
_BYTECODE: Final = ".pyc"
_CACHE_DIR: Final = "__pycache__"
_WRITABLE_BY_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True, slots=True)
class Source:
    """One file to read: its path in the variant and the place that its bytes come from."""

    path: str
    location: Path
    """Final place after an allowed symbolic link; opened without following another."""
    size: int


@dataclass(frozen=True, slots=True)
class Walked:
    """A variant directory's files, with the bytecode that was passed over."""

    root: Path
    files: tuple[Source, ...]
    ignored: tuple[str, ...]


def walk(root: Path, *, links_into: Path | None = None) -> Walked:
    """List the files of a variant; raises IntegrityError for anything that may not be there.

    Refused are links that leave `links_into` (the repository's folder in a Hub cache) or, without
    it, the variant itself; everything that is neither file nor directory; bytecode without its
    source; names that some file system would confuse; too many files.
    """
    files: list[Source] = []
    ignored: list[str] = []
    allowed = os.path.realpath(links_into or root)
    try:
        for path, entry in _entries(root, "", 0, ignored):
            files.append(_source(root, path, entry, allowed))
            if len(files) > MAX_FILES:
                raise IntegrityError(f"{root} holds more than {MAX_FILES} files")
    except OSError as exc:
        raise IntegrityError(f"{root} cannot be read: {exc}") from exc
    names = {source.path for source in files}
    for path in ignored:
        if _CACHE_DIR not in path.split("/") and path.removesuffix("c") not in names:
            raise IntegrityError(f"{path} is bytecode without its source")
    if sum(source.size for source in files) > MAX_TOTAL:
        raise IntegrityError(f"{root} holds more than {MAX_TOTAL} bytes")
    return Walked(root, tuple(files), tuple(sorted(ignored)))


def digest_files(walked: Walked) -> Manifest:
    """Return the manifest of the files where they lie; raises IntegrityError, InvalidInput."""
    return _in_parallel(walked, None)


def copy_files(walked: Walked, target: Path) -> Manifest:
    """Copy all files below `target` and return the manifest of what was written."""
    for source in walked.files:
        (target / source.path).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return _in_parallel(walked, target)


@dataclass(frozen=True, slots=True)
class SealedStore:
    """The directory of verified copies, `<manifest hex>/` each, owned by this user only."""

    root: Path
    """Where new copies are made."""
    shared: Path | None = None
    """A read-only directory with copies that somebody prepared, such as a node's cache."""

    def stage(self) -> Path:
        """Return a new empty private directory on the same file system; raises OSError."""
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        # A predictable or reused name could be prepared by somebody else.
        staging = self.root / f".staging-{os.getpid()}-{secrets.token_hex(8)}"
        staging.mkdir(mode=0o700)
        return staging

    def keep(self, staging: Path, manifest: Manifest) -> Path:
        """Make a staged copy read-only and give it its name; raises OSError.

        Where another process was first, its copy is used if it passes the same checks; where
        something else took the name, this copy keeps one of its own.
        """
        for directory, _, _ in os.walk(staging):
            Path(directory).chmod(0o500)
        final = self.root / manifest.digest.hex
        try:
            staging.rename(final)
        except OSError:
            try:
                self.check(manifest)
            except IntegrityError:
                final = self.root / f"{manifest.digest.hex}-{secrets.token_hex(8)}"
                staging.rename(final)
            else:
                discard(staging)
                return self.path(manifest.digest)
        return final

    def path(self, manifest: Digest) -> Path:
        """Return where the copy of these files lies or would lie."""
        if self.shared is not None and (self.shared / manifest.hex).is_dir():
            return self.shared / manifest.hex
        return self.root / manifest.hex

    def check(self, manifest: Manifest) -> Path:
        """Return an existing copy after digesting all of it again; raises IntegrityError."""
        path = self.path(manifest.digest)
        walked = walk(path)
        if walked.ignored:
            raise IntegrityError(f"the sealed copy {path} holds bytecode: {walked.ignored[0]}")
        _check_private(walked)
        try:
            found = digest_files(walked)
        except InvalidInput as exc:
            raise IntegrityError(f"the sealed copy {path}: {exc.message}") from exc
        if found != manifest:
            changes = "; ".join(manifest.differences(found.files))
            raise IntegrityError(f"the sealed copy {path} was changed: {changes}")
        return path


def is_private(directory: Path) -> bool:
    """Return whether nobody else can change what lies here: every parent is looked at, too."""
    owners = {os.geteuid(), 0}
    path = Path(os.path.realpath(directory))
    for parent in (path, *path.parents):
        try:
            status = parent.stat()
        except FileNotFoundError:
            continue  # made by us later, inside a parent that is looked at next
        except OSError:
            return False
        shared = status.st_mode & _WRITABLE_BY_OTHERS and not status.st_mode & stat.S_ISVTX
        if status.st_uid not in owners or shared:
            return False
    return True


def discard(directory: Path) -> None:
    """Remove a staged or spoilt copy; what cannot be removed stays."""
    with contextlib.suppress(OSError):
        for parent, _, _ in os.walk(directory):
            Path(parent).chmod(0o700)
    shutil.rmtree(directory, ignore_errors=True)


def _entries(
    directory: Path, prefix: str, depth: int, ignored: list[str]
) -> Iterator[tuple[str, os.DirEntry[str]]]:
    if depth > MAX_DEPTH:
        raise IntegrityError(f"{directory} is nested deeper than {MAX_DEPTH} directories")
    with os.scandir(directory) as found:
        for entry in sorted(found, key=lambda item: item.name):
            path = prefix + entry.name
            if entry.is_dir(follow_symlinks=False):
                if entry.name == _CACHE_DIR:
                    ignored.append(path)
                else:
                    yield from _entries(Path(entry.path), f"{path}/", depth + 1, ignored)
            elif entry.name.endswith(_BYTECODE):
                ignored.append(path)
            else:
                yield path, entry


def _source(root: Path, path: str, entry: os.DirEntry[str], allowed: str) -> Source:
    try:
        check_path(path)
    except InvalidInput as exc:
        raise IntegrityError(exc.message) from exc
    location = entry.path
    if entry.is_symlink():
        location = os.path.realpath(entry.path)
        if os.path.commonpath([allowed, location]) != allowed:
            raise IntegrityError(f"{path} is a link that leaves {allowed}")
    status = os.lstat(location)
    if not stat.S_ISREG(status.st_mode):
        raise IntegrityError(f"{path} in {root} is not a regular file")
    return Source(path, Path(location), status.st_size)


def _in_parallel(walked: Walked, target: Path | None) -> Manifest:
    # The largest first, so that no thread starts a big file when the others are done.
    order = sorted(walked.files, key=lambda source: -source.size)
    try:
        if len(order) == 1 or WORKERS == 1:
            return Manifest.of([_read(source, target) for source in order])
        with ThreadPoolExecutor(WORKERS, thread_name_prefix="kgate") as pool:
            return Manifest.of(list(pool.map(lambda source: _read(source, target), order)))
    except OSError as exc:
        raise IntegrityError(f"{walked.root} cannot be read or copied: {exc}") from exc


def _read(source: Source, target: Path | None) -> FileEntry:
    # Not followed and not waited for: what stood here a moment ago may be a link or a pipe now.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    handle = os.open(source.location, flags)
    with os.fdopen(handle, "rb", buffering=0) as stream:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise IntegrityError(f"{source.path} is not a regular file")
        if target is None:
            digest, size = _digest(stream.fileno(), None)
        else:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            written = os.open(target / source.path, flags, 0o400)
            try:
                digest, size = _digest(stream.fileno(), written)
            finally:
                os.close(written)
    return FileEntry(source.path, size, digest)


def _digest(source: int, target: int | None) -> tuple[Digest, int]:
    state = hashlib.sha256()
    size = 0
    buffer = bytearray(CHUNK)
    view = memoryview(buffer)
    while count := os.readv(source, [buffer]):
        state.update(view[:count])
        if target is not None:
            _write_all(target, view[:count])
        size += count
        if size > MAX_TOTAL:
            raise IntegrityError(f"a file grew beyond {MAX_TOTAL} bytes while it was read")
    return Digest(state.hexdigest()), size


def _write_all(target: int, data: memoryview) -> None:
    while data:
        data = data[os.write(target, data) :]


def _check_private(walked: Walked) -> None:
    owners = {os.geteuid(), 0}
    directories: Sequence[Path] = [Path(parent) for parent, _, _ in os.walk(walked.root)]
    for path in [*directories, *(source.location for source in walked.files)]:
        status = os.lstat(path)
        if status.st_uid not in owners or status.st_mode & _WRITABLE_BY_OTHERS:
            raise IntegrityError(f"{path} could have been written by somebody else")
