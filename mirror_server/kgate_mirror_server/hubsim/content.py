"""What a repository holds: commits, trees and blobs, with the ids that git would give them.

A commit is a snapshot of a folder. Small files are kept in memory; a file over `MAX_IN_MEMORY`
is read from where it lies whenever it is served and must stay as it is. Nothing is ever merged,
packed or removed.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kgate_core.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MAX_IN_MEMORY: Final = 4 * 1024**2  # bytes
LFS_THRESHOLD: Final = 10 * 1024**2  # bytes; above it the Hub takes a file through LFS only
_LFS_SUFFIXES: Final = (".so", ".bin", ".safetensors", ".pt")
CHUNK: Final = 64 * 1024  # bytes
EPOCH: Final = datetime(2026, 1, 1, tzinfo=UTC)
_AUTHOR: Final = "Hub simulator <hub@simulator.invalid>"
_FILE, _EXECUTABLE, _LINK, _TREE = "100644", "100755", "120000", "40000"


@dataclass(frozen=True, slots=True)
class Blob:
    """One file's bytes. `oid` is git's id, of the content or of the LFS pointer to it."""

    size: int
    oid: str
    sha256: str | None
    """Set for LFS files: the sha256 of the content in hex."""
    pointer_size: int
    """Bytes of the LFS pointer, 0 for other files."""
    mode: str
    source: bytes | Path = field(repr=False)

    @property
    def etag(self) -> str:
        """The id that the Hub sends as ETag."""
        return self.sha256 or self.oid

    def chunks(self, start: int, length: int) -> Iterator[bytes]:
        """Yield `length` bytes from `start` on."""
        if isinstance(self.source, bytes):
            view = self.source[start : start + length]
            yield from (view[i : i + CHUNK] for i in range(0, len(view), CHUNK))
            return
        with self.source.open("rb") as file:
            file.seek(start)
            while length > 0 and (piece := file.read(min(CHUNK, length))):
                length -= len(piece)
                yield piece


@dataclass(frozen=True, slots=True)
class Commit:
    """A snapshot: files by path, and git's id of every directory by path."""

    id: str
    message: str
    date: datetime
    parent: str | None
    files: Mapping[str, Blob]
    directories: Mapping[str, str]


@dataclass(slots=True)
class Repository:
    """Branches by name, and every commit that any of them ever pointed at."""

    name: str
    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)

    def commit(
        self, branch: str, files: Mapping[str, Blob], message: str, date: datetime = EPOCH
    ) -> Commit:
        """Put a new commit on top of the branch and return it."""
        parent = self.branches.get(branch)
        directories: dict[str, str] = {}
        tree = _write_tree(files, "", directories)
        stamp = f"{_AUTHOR} {int(date.timestamp())} +0000"
        lines = [f"tree {tree}", *([f"parent {parent}"] if parent else [])]
        lines += [f"author {stamp}", f"committer {stamp}", "", message]
        oid = _git_oid("commit", ("\n".join(lines) + "\n").encode())
        made = Commit(oid, message, date, parent, dict(sorted(files.items())), directories)
        self.commits[oid] = made
        self.branches[branch] = oid
        return made

    def find(self, revision: str) -> Commit | None:
        """Return the commit that a commit id or a branch, also as `refs/heads/…`, names."""
        found = self.branches.get(revision.removeprefix("refs/heads/"), revision)
        return self.commits.get(found)


def read_folder(folder: Path) -> dict[str, Blob]:
    """Snapshot a folder as git would: every file by path, symbolic links as links.

    Raises NotFound if there is no such folder and InvalidInput for what git cannot hold.
    """
    if not folder.is_dir():
        raise NotFound(f"there is no folder {folder}")
    files: dict[str, Blob] = {}
    for parent, directories, names in os.walk(folder):
        links = [name for name in directories if (Path(parent) / name).is_symlink()]
        for name in [*names, *links]:
            path = Path(parent) / name
            files[path.relative_to(folder).as_posix()] = _read(path)
    return files


def _read(path: Path) -> Blob:
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        target = os.fsencode(path.readlink())
        return Blob(len(target), _git_oid("blob", target), None, 0, _LINK, target)
    if not stat.S_ISREG(status.st_mode):
        raise InvalidInput(f"{path} is neither a file nor a folder nor a link")
    mode = _EXECUTABLE if status.st_mode & stat.S_IXUSR else _FILE
    size = status.st_size
    source = path.read_bytes() if size <= MAX_IN_MEMORY else path.absolute()
    if size <= LFS_THRESHOLD and not path.name.endswith(_LFS_SUFFIXES):
        return Blob(size, _git_oid("blob", path.read_bytes()), None, 0, mode, source)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    # https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md, "The Pointer"
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {size}\n"
    encoded = pointer.encode()
    return Blob(size, _git_oid("blob", encoded), digest, len(encoded), mode, source)


def _git_oid(kind: str, data: bytes) -> str:
    # git's object names are sha1 by definition; nothing here is trusted because of them
    return hashlib.sha1(f"{kind} {len(data)}\0".encode() + data, usedforsecurity=False).hexdigest()


def _write_tree(files: Mapping[str, Blob], prefix: str, directories: dict[str, str]) -> str:
    """Return git's id of the directory `prefix`, noting those of all directories below it."""
    entries: dict[str, tuple[str, str]] = {}
    below: dict[str, dict[str, Blob]] = {}
    for path, blob in files.items():
        head, slash, rest = path.partition("/")
        if slash:
            below.setdefault(head, {})[rest] = blob
        else:
            entries[head] = (blob.mode, blob.oid)
    for name, inner in below.items():
        path = f"{prefix}{name}"
        directories[path] = _write_tree(inner, f"{path}/", directories)
        entries[name] = (_TREE, directories[path])
    # git sorts as if a directory's name ended in a slash
    order = sorted(entries.items(), key=lambda item: item[0] + "/" * (item[1][0] == _TREE))
    data = b"".join(f"{mode} {name}\0".encode() + bytes.fromhex(oid) for name, (mode, oid) in order)
    return _git_oid("tree", data)
