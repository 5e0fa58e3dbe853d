"""Whether a variant's libraries would really be the ones that the loader takes.

A library that needs another one of its own variant finds it by name, and the loader looks in more
places than the variant: LD_LIBRARY_PATH comes before a RUNPATH, and a library that is loaded
already comes before both (ld.so(8)). Which libraries a kernel may need at all was decided when it
was admitted; here only a substitution on this very host is looked for. Only what that takes is
read of an ELF file: System V gABI, chapter 5, for 64-bit little-endian machines.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

from kgate_core.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kgate_core.manifest import Manifest

MAPS: Final = Path("/proc/self/maps")
_MAGIC: Final = b"\x7fELF\x02\x01"
_HEADER: Final = struct.Struct("<32xQ14xHH")  # program header offset, entry size, count
_SEGMENT: Final = struct.Struct("<IIQQ8xQ")  # type, flags, offset, address, size in the file
_ENTRY: Final = struct.Struct("<qQ")
_LOAD, _DYNAMIC = 1, 2
_NULL, _NEEDED, _STRTAB, _SONAME, _RPATH, _RUNPATH = 0, 1, 5, 14, 15, 29
_MAX_ENTRIES: Final = 4096  # dynamic entries; real libraries have about forty
_MAX_NAME: Final = 4096  # bytes


@dataclass(frozen=True, slots=True)
class Library:
    """What one library says about names and places."""

    path: str
    soname: str
    needed: tuple[str, ...]
    search: tuple[str, ...]
    """Its RUNPATH, or its RPATH where it has no RUNPATH."""


def check_closure(
    directory: Path,
    manifest: Manifest,
    *,
    library_path: str,
    mapped: Iterable[str],
) -> str:
    """Return why another library than the verified one would be taken, or nothing.

    `directory` holds the files, `library_path` is LD_LIBRARY_PATH, `mapped` are the files that
    this process has loaded. Raises InvalidInput for a library that cannot be read.
    """
    libraries = tuple(_libraries(directory, manifest))
    own = {PurePosixPath(library.path).name for library in libraries}
    own |= {library.soname for library in libraries if library.soname}
    wanted = {name for library in libraries for name in library.needed if name in own}
    for path in mapped:
        if PurePosixPath(path).name in wanted:
            return f"{PurePosixPath(path).name} is loaded already, from {path}"
    for folder in library_path.split(":"):
        for name in sorted(wanted):
            if folder and (Path(folder) / name).exists():
                return f"{name} would be taken from LD_LIBRARY_PATH: {folder}"
    for library in libraries:
        if problem := _leaves(library):
            return problem
    return ""


def mapped_files() -> tuple[str, ...]:
    """Return the libraries that are mapped into this process; empty where that cannot be seen."""
    try:
        lines = MAPS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ()
    paths = (line.partition("/")[2] for line in lines if "/" in line)
    return tuple(dict.fromkeys(f"/{path}" for path in paths if ".so" in path))


def read_library(path: str, data: bytes | mmap.mmap) -> Library | None:
    """Read the dynamic entries of one file; None if it is no library, InvalidInput if broken."""
    if data[: len(_MAGIC)] != _MAGIC:
        return None
    try:
        return _read(path, data)
    except (struct.error, IndexError, OverflowError, ValueError) as exc:
        raise InvalidInput(f"{path} is not a well-formed library ({exc})") from exc


def _libraries(directory: Path, manifest: Manifest) -> Iterator[Library]:
    for entry in manifest.files:
        if ".so" not in entry.path or entry.size < len(_MAGIC):
            continue
        with (
            (directory / entry.path).open("rb") as stream,
            mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            library = read_library(entry.path, data)
        if library is not None:
            yield library


def _read(path: str, data: bytes | mmap.mmap) -> Library:
    offset, size, count = _HEADER.unpack_from(data)
    segments = [_SEGMENT.unpack_from(data, offset + size * index) for index in range(count)]
    loads = [segment for segment in segments if segment[0] == _LOAD]
    dynamic = next((segment for segment in segments if segment[0] == _DYNAMIC), None)
    if dynamic is None:
        return Library(path, "", (), ())
    found: dict[int, list[int]] = {}
    for index in range(_MAX_ENTRIES):
        tag, value = _ENTRY.unpack_from(data, dynamic[2] + index * _ENTRY.size)
        if tag == _NULL:
            break
        found.setdefault(tag, []).append(value)
    strings = _offset_of(found.get(_STRTAB, [0])[0], loads)

    def names(tag: int) -> tuple[str, ...]:
        return tuple(_text(data, strings + value) for value in found.get(tag, ()))

    search = names(_RUNPATH) or names(_RPATH)
    return Library(
        path,
        next(iter(names(_SONAME)), ""),
        names(_NEEDED),
        tuple(entry for text in search for entry in text.split(":")),
    )


def _offset_of(address: int, loads: list[tuple[int, ...]]) -> int:
    for _, _, offset, start, size in loads:
        if start <= address < start + size:
            return address - start + offset
    raise ValueError("its string table lies outside of its segments")


def _text(data: bytes | mmap.mmap, start: int) -> str:
    raw = data[start : start + _MAX_NAME]
    return raw[: raw.index(b"\0")].decode("utf-8", "surrogateescape")


def _leaves(library: Library) -> str:
    """Say which library a search path outside of the variant really offers."""
    depth = len(PurePosixPath(library.path).parts) - 1
    for entry in library.search:
        text = entry.replace("${ORIGIN}", "$ORIGIN")
        if text == "$ORIGIN" or text.startswith("$ORIGIN/"):
            level = depth
            for part in text.split("/")[1:]:
                level += -1 if part == ".." else part not in {"", "."}
                if level < 0:
                    return f"{library.path} looks for libraries outside of the variant: {entry}"
            continue
        for name in library.needed:
            if (Path(text or ".") / name).exists():
                return f"{library.path} would take {name} from {text or 'the current directory'}"
    return ""
