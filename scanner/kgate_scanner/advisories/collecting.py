"""Takes the JSON documents out of a file, a folder or a zip archive, within limits.

Nothing is unpacked onto a disk. Names that lead elsewhere, links, encrypted members and archives
that grow beyond the limits are refused as a whole. Where a publisher laid a `.sha256` or `.sha512`
beside a document (CSAF 2.0, section 7.1.18), it must agree. What the documents say is not read.
"""

from __future__ import annotations

import hashlib
import os
import stat
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

from kgate_core import strictjson
from kgate_core.digest import Digest
from kgate_core.errors import IntegrityError, InvalidInput, NotFound
from kgate_scanner.advisories.documents import MAX_DOCUMENT

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_FILES: Final = 200_000  # documents and whatever lies beside them
MAX_TOTAL: Final = 256 * 1024**2  # bytes of all documents together
MAX_SIDECAR: Final = 4096  # bytes of a checksum file
_SIDECARS: Final = {".sha256": "sha256", ".sha512": "sha512"}
_DOCUMENT: Final = ".json"


@dataclass(frozen=True, slots=True)
class Collected:
    """The documents of one feed, in the order of their digests: where they lay is no part of it."""

    documents: tuple[tuple[str, bytes], ...]
    """Name, and bytes."""

    @property
    def digest(self) -> Digest:
        """Digest over the documents' digests: the same for a folder and for its archive."""
        return digest_of(data for _, data in self.documents)


def digest_of(documents: Iterator[bytes] | tuple[bytes, ...]) -> Digest:
    """Return the digest that names a set of documents, whatever they are called."""
    return Digest.of(strictjson.dumps(sorted({str(Digest.of(data)) for data in documents})))


def collect(path: Path) -> Collected:
    """Return the documents under a path; raises NotFound, InvalidInput, IntegrityError."""
    if path.is_dir():
        found = _folder(path)
    elif not path.is_file():
        raise NotFound(f"there is no {path}", hint="name a folder, a zip archive or a JSON file")
    elif zipfile.is_zipfile(path):
        found = _archive(path)
    else:
        found = iter([(path.name, _read(path, MAX_DOCUMENT))])
    documents: dict[str, bytes] = {}
    sidecars: dict[str, bytes] = {}
    total = 0
    for name, data in found:
        total += len(data)
        if total > MAX_TOTAL:
            raise InvalidInput(
                f"{path}: more than {MAX_TOTAL} bytes",
                hint="import a part of it under its own name",
            )
        if PurePosixPath(name).suffix in _SIDECARS:
            sidecars[name] = data
        else:
            documents[name] = data
    if not documents:
        raise InvalidInput(f"{path}: there is no JSON document in it")
    _check_sidecars(documents, sidecars)
    order = sorted(documents, key=lambda name: (Digest.of(documents[name]), name))
    return Collected(tuple((name, documents[name]) for name in order))


def _folder(root: Path) -> Iterator[tuple[str, bytes]]:
    count = 0
    for folder, inner, names in os.walk(root):
        inner.sort()
        for name in sorted([*names, *inner]):
            path = Path(folder, name)
            if path.is_symlink():
                raise InvalidInput(f"{path}: a link, which could lead anywhere")
        for name in sorted(names):
            count = _counted(count, root)
            limit = _limit(name)
            if limit:
                path = Path(folder, name)
                yield path.relative_to(root).as_posix(), _read(path, limit)


def _archive(path: Path) -> Iterator[tuple[str, bytes]]:
    count, seen = 0, set()
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                count = _counted(count, path)
                name = info.filename
                pure = PurePosixPath(name)
                if pure.is_absolute() or ".." in pure.parts or "\\" in name or "\0" in name:
                    raise InvalidInput(f"{path}: the name {name!r} leads out of it")
                if stat.S_ISLNK(info.external_attr >> 16):
                    raise InvalidInput(f"{path}: {name} is a link")
                if info.flag_bits & 1:
                    raise InvalidInput(f"{path}: {name} is encrypted")
                limit = _limit(name)
                if info.is_dir() or not limit:
                    continue
                if name in seen:
                    raise InvalidInput(f"{path}: {name} is in it twice")
                seen.add(name)
                with archive.open(info) as stream:
                    # The declared size is the archive's own claim: what comes out is counted.
                    yield name, _bounded(stream.read(limit + 1), limit, f"{path}: {name}")
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, OSError) as exc:
        raise InvalidInput(f"{path}: no archive that can be read ({exc})") from exc


def _limit(name: str) -> int:
    """Return how many bytes a file may have; 0 for files that are of no interest."""
    suffix = PurePosixPath(name).suffix.lower()
    if suffix == _DOCUMENT:
        return MAX_DOCUMENT
    return MAX_SIDECAR if suffix in _SIDECARS else 0


def _counted(count: int, path: Path) -> int:
    if count >= MAX_FILES:
        raise InvalidInput(f"{path}: more than {MAX_FILES} files")
    return count + 1


def _read(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as stream:
            return _bounded(stream.read(limit + 1), limit, str(path))
    except OSError as exc:
        raise InvalidInput(f"{path}: cannot be read ({exc.strerror})") from exc


def _bounded(data: bytes, limit: int, what: str) -> bytes:
    if len(data) > limit:
        raise InvalidInput(f"{what}: more than {limit} bytes")
    return data


def _check_sidecars(documents: dict[str, bytes], sidecars: dict[str, bytes]) -> None:
    for name, data in sorted(sidecars.items()):
        pure = PurePosixPath(name)
        document = documents.get(str(pure.with_suffix("")))
        if document is None:
            continue  # beside something that is no JSON document
        words = data.decode("ascii", "replace").split()
        expected = words[0].lower() if words else ""
        if hashlib.new(_SIDECARS[pure.suffix], document).hexdigest() != expected:
            raise IntegrityError(
                f"{pure.with_suffix('')} is not what {pure.name} promises",
                hint="get it again from its publisher",
            )
