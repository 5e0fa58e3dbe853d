"""What one build variant consists of: every file's path, size and digest, in canonical bytes.

The digest of those bytes names the variant: it binds names and contents together and is the first
subject of every attestation. A manifest does not say which repository or revision the files came
from (attestations do), and nothing here touches a disk.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

from kgate_core import strictjson
from kgate_core.digest import Digest
from kgate_core.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterable

SCHEMA: Final = "kgate.dev/manifest/v1"
MAX_FILES: Final = 20_000
MAX_PATH: Final = 1024  # bytes in UTF-8
MAX_SIZE: Final = 64 * 1024**3  # bytes in one file; the Hub's own plain limit is 50 GB
_FORBIDDEN: Final = frozenset('\\:*?"<>|')


def check_path(path: str) -> str:
    """Return a relative POSIX path if every file system keeps it apart; raises InvalidInput."""
    if not isinstance(path, str) or not path or len(path.encode("utf-8", "replace")) > MAX_PATH:
        raise InvalidInput(f"not a usable file path: {path!r}")
    segments = path.split("/")
    if any(segment in {"", ".", ".."} for segment in segments):
        raise InvalidInput(f"a file path may not be absolute or climb: {path!r}")
    if any(not char.isprintable() or char in _FORBIDDEN for char in path):
        raise InvalidInput(f"a file path holds a character that is not allowed: {path!r}")
    if any(segment != segment.strip(" ") or segment.endswith(".") for segment in segments):
        raise InvalidInput(
            f"a file path segment may not begin or end in a space or end in a dot: {path!r}"
        )
    if unicodedata.normalize("NFC", path) != path:
        raise InvalidInput(f"a file path must be in Unicode normal form C: {path!r}")
    return path


@dataclass(frozen=True, slots=True, order=True)
class FileEntry:
    """One file of a variant: path relative to the variant directory, size in bytes, digest."""

    path: str
    size: int
    digest: Digest

    def __post_init__(self) -> None:
        check_path(self.path)
        if isinstance(self.size, bool) or not 0 <= self.size <= MAX_SIZE:
            raise InvalidInput(f"{self.path}: impossible file size {self.size}")


@dataclass(frozen=True)
class Manifest:
    """All files of one variant, sorted by path; equal files give equal bytes and one digest."""

    files: tuple[FileEntry, ...]

    def __post_init__(self) -> None:
        if not self.files:
            raise InvalidInput("a manifest lists at least one file")
        if len(self.files) > MAX_FILES:
            raise InvalidInput(
                f"a manifest lists at most {MAX_FILES} files, found {len(self.files)}"
            )
        paths = [entry.path for entry in self.files]
        if paths != sorted(paths):
            raise InvalidInput("the files of a manifest are sorted by path")
        _refuse_collisions(paths)

    @classmethod
    def of(cls, files: Iterable[FileEntry]) -> Manifest:
        """Build a manifest from entries in any order; raises InvalidInput on colliding paths."""
        return cls(tuple(sorted(files, key=lambda entry: entry.path)))

    @classmethod
    def parse(cls, data: bytes) -> Manifest:
        """Read canonical bytes; raises InvalidInput for any other spelling of them."""
        what = "manifest"
        document = strictjson.loads(data, what=what)
        if strictjson.take(document, "schema", str, what=what) != SCHEMA:
            raise InvalidInput(
                f"{what}: unknown schema {document['schema']!r}; this version reads {SCHEMA}"
            )
        strictjson.refuse_unknown(document, {"schema", "files"}, what=what)
        entries = []
        for item in strictjson.take(document, "files", list, what=what):
            path = strictjson.take(item, "path", str, what=what)
            strictjson.refuse_unknown(item, {"path", "size", "digest"}, what=f"{what}: {path}")
            entries.append(
                FileEntry(
                    path,
                    strictjson.take(item, "size", int, what=what),
                    Digest.parse(strictjson.take(item, "digest", str, what=what)),
                )
            )
        manifest = cls(tuple(entries))
        if manifest.canonical != data:
            raise InvalidInput("manifest: the bytes are not in canonical form")
        return manifest

    @cached_property
    def canonical(self) -> bytes:
        """The bytes that are stored, sent and digested."""
        files = [
            {"path": entry.path, "size": entry.size, "digest": str(entry.digest)}
            for entry in self.files
        ]
        return strictjson.dumps({"schema": SCHEMA, "files": files})

    @cached_property
    def digest(self) -> Digest:
        """The digest of the canonical bytes: the variant's name wherever bytes are meant."""
        return Digest.of(self.canonical)

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(entry.size for entry in self.files)

    @cached_property
    def by_path(self) -> dict[str, FileEntry]:
        """Return the entries by their path."""
        return {entry.path: entry for entry in self.files}

    def differences(self, found: Iterable[FileEntry]) -> tuple[str, ...]:
        """Say in sentences how files found elsewhere differ; empty means exactly the same set."""
        seen: dict[str, FileEntry] = {entry.path: entry for entry in found}
        said = []
        for path in sorted(self.by_path.keys() | seen.keys()):
            ours, theirs = self.by_path.get(path), seen.get(path)
            if theirs is None:
                said.append(f"{path} is missing")
            elif ours is None:
                said.append(f"{path} is not in the signed manifest")
            elif ours.size != theirs.size:
                said.append(f"{path} has {theirs.size} bytes instead of {ours.size}")
            elif ours.digest != theirs.digest:
                said.append(f"{path} has {theirs.digest} instead of {ours.digest}")
        return tuple(said)


def _refuse_collisions(paths: list[str]) -> None:
    # On a case-insensitive or normalising file system two of these would be one file, and a file
    # cannot also be a directory.
    folded: dict[str, str] = {}
    for path in paths:
        key = unicodedata.normalize("NFKC", path).casefold()
        if key in folded:
            raise InvalidInput(f"the paths {folded[key]!r} and {path!r} collide")
        folded[key] = path
    for key, path in folded.items():
        parent = key.rpartition("/")[0]
        while parent:
            if parent in folded:
                raise InvalidInput(f"{folded[parent]!r} is a file and cannot hold {path!r}")
            parent = parent.rpartition("/")[0]
