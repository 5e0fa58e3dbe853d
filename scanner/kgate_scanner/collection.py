"""Collects the files of a directory or a wheel for a scan: regular files inside, nothing else.

Links are followed only while they stay inside the directory (or the Hub cache that it belongs to);
special files are never opened; names that cannot be kept apart are left out. Everything left out
is a finding. Nothing is unpacked under a name from inside an archive.
"""

from __future__ import annotations

import hashlib
import os
import stat
import unicodedata
import zipfile
import zlib
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kgate_core.digest import Digest
from kgate_core.errors import InvalidInput
from kgate_core.manifest import MAX_FILES, FileEntry, Manifest, check_path
from kgate_scanner import rules_files as rules

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kgate_core.evidence import Finding

_CHUNK: Final = 1 << 20  # bytes per read
_MAX_MEMBER: Final = 8 * 1024**3  # bytes of one unpacked archive member
_MAX_UNPACKED: Final = 32 * 1024**3  # bytes of all unpacked members together


@dataclass(slots=True)
class Collection:
    """Files by their path in the manifest, and what was left out."""

    files: dict[str, Path] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    """Bytes of each file when it was collected."""
    findings: list[Finding] = field(default_factory=list)
    complete: bool = True
    _folded: set[str] = field(default_factory=set)
    _full: bool = False

    def read_manifest(self) -> Manifest:
        """Read and digest all files; raises InvalidInput if there are none."""
        entries = []
        for name, place in self.files.items():
            try:
                with place.open("rb") as content:
                    digest = hashlib.file_digest(content, "sha256").hexdigest()
            except OSError as exc:
                seen = f"could not be read ({type(exc).__name__})"
                self.leave_out(rules.UNREADABLE.finding(name, seen))
            else:
                entries.append(FileEntry(name, self.sizes[name], Digest(digest)))
        if not entries:
            raise InvalidInput("there is no file to scan")
        return Manifest.of(entries)

    def identities(self) -> dict[str, tuple[int, ...]]:
        """Return what changes when a file is replaced or written to; nothing for one that went."""
        found: dict[str, tuple[int, ...]] = {}
        for name, place in self.files.items():
            with suppress(OSError):
                seen = place.stat()
                found[name] = (seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns)
        return found

    @contextmanager
    def open_path(self, name: str) -> Iterator[Path]:
        """Give the place of a file's bytes."""
        yield self.files[name]

    def add(self, name: str, place: Path) -> None:
        """Take in one regular file under a name; what is wrong with either is a finding."""
        if len(self.files) >= MAX_FILES:
            if not self._full:
                seen = f"more than {MAX_FILES} files: this one and all after it were not read"
                self.leave_out(rules.TOO_LARGE.finding(printable(name), seen))
            self._full = True
            return
        try:
            self._check_name(name)
            size = place.stat().st_size
        except InvalidInput as exc:
            self.leave_out(rules.ODD_NAME.finding(printable(name), exc.message))
        except OSError as exc:
            seen = f"could not be read ({type(exc).__name__})"
            self.leave_out(rules.UNREADABLE.finding(printable(name), seen))
        else:
            self._folded.add(_folded(name))
            self.files[name] = place
            self.sizes[name] = size

    def _check_name(self, name: str) -> None:
        check_path(name)
        if _folded(name) in self._folded:
            raise InvalidInput("another file has the same name on some file systems")

    def leave_out(self, finding: Finding) -> None:
        """Record a file that is not scanned: the scan is not complete."""
        self.findings.append(finding)
        self.complete = False


def collect_directory(root: Path, *, skip: frozenset[str] = frozenset()) -> Collection:
    """Return the regular files under a directory; `skip` names entries of the top level."""
    found = Collection()
    inside = link_root(root)
    for place, name in _walk(root, skip):
        mode = place.lstat().st_mode
        if stat.S_ISLNK(mode):
            target = place.resolve()
            if not target.is_relative_to(inside):
                seen = f"leads to {printable(str(place.readlink()))}"
                found.leave_out(rules.LINK_OUTSIDE.finding(printable(name), seen))
                continue
            if target.is_dir():
                continue  # its files are inside, and are scanned where they are
            mode = target.stat().st_mode if target.exists() else 0
        if not stat.S_ISREG(mode):
            seen = "a special file" if mode else "a link to a file that does not exist"
            found.leave_out(rules.SPECIAL.finding(printable(name), seen))
            continue
        found.add(name, place)
    return found


def collect_wheel(archive: Path, into: Path) -> Collection:
    """Unpack a zip archive under numbers in the directory `into`; raises InvalidInput if broken."""
    found = Collection()
    left = _MAX_UNPACKED
    try:
        with zipfile.ZipFile(archive) as opened:
            for number, member in enumerate(opened.infolist()):
                if member.is_dir():
                    continue
                place = into / str(number)
                left -= _unpack(opened, member, place, min(left, _MAX_MEMBER))
                found.add(member.filename, place)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as exc:
        raise InvalidInput(f"{archive.name} is not an archive that can be read: {exc}") from exc
    return found


def _unpack(opened: zipfile.ZipFile, member: zipfile.ZipInfo, place: Path, most: int) -> int:
    written = 0
    with opened.open(member) as source, place.open("xb") as sink:
        while chunk := source.read(_CHUNK):
            written += len(chunk)
            if written > most or written > member.file_size:
                raise InvalidInput(f"{printable(member.filename)} unpacks to more than it may")
            sink.write(chunk)
    return written


def link_root(root: Path) -> Path:
    """Return the directory that links may not leave: a Hub cache's entry, or the root itself."""
    resolved = root.resolve()
    for parent in resolved.parents:
        if parent.name == "snapshots" and (parent.parent / "blobs").is_dir():
            return parent.parent
    return resolved


def printable(name: str) -> str:
    """Return a name from outside as it can be shown and written."""
    text = name.encode("utf-8", "backslashreplace").decode()
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)[:1024]


def _walk(root: Path, skip: frozenset[str]) -> Iterator[tuple[Path, str]]:
    for directory, inner, names in os.walk(root, followlinks=False):
        here = Path(directory)
        if here == root:
            inner[:] = [name for name in inner if name not in skip]
        inner.sort()
        links = [name for name in inner if (here / name).is_symlink()]
        for name in sorted([*names, *links]):
            if here != root or name not in skip:
                yield here / name, (here / name).relative_to(root).as_posix()


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold()
