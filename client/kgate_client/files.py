"""Reads the files of a variant directory: lists, digests, copies and compares them.

Every byte is read from a file that was opened without following links, and what is digested is
what was read or written here, never what a name may mean later. Bytecode is left out. Whether
these files may run is not decided here.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from kgate_core.digest import Digest
from kgate_core.errors import IntegrityError, InvalidInput
from kgate_core.manifest import MAX_FILES, FileEntry, Manifest, check_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

R = TypeVar("R")
MAX_DEPTH: Final = 32  # directories below the variant
MAX_TOTAL: Final = 64 * 1024**3  # bytes in one variant
CHUNK: Final = 1024**2  # bytes read, digested and written at a time
WORKERS: Final = min(8, os.cpu_count() or 1)  # hashlib and file system calls release the GIL
WORTH_THREADS: Final = 8 * CHUNK  # bytes below which starting threads costs more than it saves
_BYTECODE: Final = ".pyc"
_CACHE_DIR: Final = "__pycache__"
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


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
    return Manifest.of(_each(walked, lambda source: _entry(source, None)))


def copy_files(walked: Walked, target: Path) -> Manifest:
    """Copy all files below `target` and return the manifest of what was written."""
    for source in walked.files:
        (target / source.path).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return Manifest.of(_each(walked, lambda source: _entry(source, target / source.path)))


def same_files(walked: Walked, sealed: Walked) -> Manifest | None:
    """Return the manifest of a copy whose every byte equals the files', None if one differs.

    Each file is read twice and digested once: comparing bytes is much cheaper than a digest.
    """
    copies = {source.path: source for source in sealed.files}
    if copies.keys() != {source.path for source in walked.files}:
        return None
    entries = list(_each(walked, lambda source: _compare(source, copies[source.path])))
    found = [entry for entry in entries if entry is not None]
    return Manifest.of(found) if len(found) == len(entries) else None


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


def _each(walked: Walked, read: Callable[[Source], R]) -> Iterable[R]:
    # The largest first, so that no thread starts a big file when the others are done.
    order = sorted(walked.files, key=lambda source: -source.size)
    try:
        if WORKERS == 1 or sum(source.size for source in order) < WORTH_THREADS:
            return [read(source) for source in order]
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(WORKERS, thread_name_prefix="kgate") as pool:
            return list(pool.map(read, order))
    except OSError as exc:
        raise IntegrityError(f"{walked.root} cannot be read or copied: {exc}") from exc


def _open(source: Source) -> int:
    # Not followed and not waited for: what stood here a moment ago may be a link or a pipe now.
    handle = os.open(source.location, _READ)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise IntegrityError(f"{source.path} is not a regular file")
    return handle


def _entry(source: Source, target: Path | None) -> FileEntry:
    handle = _open(source)
    try:
        if target is None:
            digest, size = _digest(handle)
        else:
            written = os.open(target, _WRITE, 0o400)
            try:
                _copy(handle, written)
                # What was written is read back: those are the bytes that will run.
                os.lseek(written, 0, os.SEEK_SET)
                digest, size = _digest(written)
            finally:
                os.close(written)
    finally:
        os.close(handle)
    return FileEntry(source.path, size, digest)


def _copy(source: int, target: int) -> None:
    try:
        # Inside the kernel: a quarter of the time that reading and writing take.
        while os.copy_file_range(source, target, CHUNK):
            _check_size(os.lseek(target, 0, os.SEEK_CUR))
    except OSError:
        # Other file systems in between, or an old kernel.
        os.lseek(source, 0, os.SEEK_SET)
        os.ftruncate(target, 0)
        os.lseek(target, 0, os.SEEK_SET)
        while data := os.read(source, CHUNK):
            _write_all(target, memoryview(data))
            _check_size(os.lseek(target, 0, os.SEEK_CUR))


def _write_all(target: int, data: memoryview) -> None:
    while data:
        data = data[os.write(target, data) :]


def _digest(handle: int) -> tuple[Digest, int]:
    state = hashlib.sha256()
    size = 0
    buffer = bytearray(CHUNK)
    view = memoryview(buffer)
    while count := os.readv(handle, [buffer]):
        state.update(view[:count])
        size += count
        _check_size(size)
    return Digest(state.hexdigest()), size


def _compare(source: Source, copy: Source) -> FileEntry | None:
    left = _open(source)
    try:
        right = _open(copy)
        try:
            return _compare_bytes(source.path, left, right)
        finally:
            os.close(right)
    finally:
        os.close(left)


def _compare_bytes(path: str, left: int, right: int) -> FileEntry | None:
    state = hashlib.sha256()
    size = 0
    while True:
        ours, theirs = os.read(right, CHUNK), os.read(left, CHUNK)
        if ours != theirs:
            return None
        if not ours:
            return FileEntry(path, size, Digest(state.hexdigest()))
        state.update(ours)
        size += len(ours)
        _check_size(size)


def _check_size(size: int) -> None:
    if size > MAX_TOTAL:
        raise IntegrityError(f"a file grew beyond {MAX_TOTAL} bytes while it was read")
