"""Reads the dynamic array as the loader does, and compares it with what the section headers show.

The loader goes by program headers and the dynamic array alone (System V gABI, chapter 5); most
tools lean on section headers, and LIEF drops entries that it does not know and names that are not
UTF-8. A file whose two views differ was made to be misread. Symbols are only counted here.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kgate_scanner.elf import Elf

_PT_DYNAMIC: Final = 2
_SHT_DYNAMIC, _SHT_DYNSYM = 6, 11
DT_NEEDED, DT_SONAME, DT_RPATH, DT_RUNPATH = 1, 14, 15, 29
DT_TEXTREL, DT_BIND_NOW, DT_INIT_ARRAYSZ, DT_FLAGS, DT_FLAGS_1 = 22, 24, 27, 30, 0x6FFFFFFB
_NAMED: Final = (DT_NEEDED, DT_SONAME, DT_RPATH, DT_RUNPATH)
LOADER_HOOKS: Final = {
    0x6FFFFEFB: "DEPAUDIT",
    0x6FFFFEFC: "AUDIT",
    0x7FFFFFFD: "AUXILIARY",
    0x7FFFFFFF: "FILTER",
}
"""Tags that let a library stand between others and the loader (not in the gABI: see ld.so(8))."""
_MANY: Final = frozenset({DT_NEEDED, *LOADER_HOOKS})
_DT_NULL, _DT_PLTRELSZ, _DT_STRTAB, _DT_SYMTAB = 0, 2, 5, 6
_DT_RELA, _DT_RELASZ, _DT_JMPREL = 7, 8, 23
_DYN: Final = struct.Struct("<qQ")
_RELA: Final = struct.Struct("<QIIq")
_SYMBOL_SIZE: Final = 24
_MAX_TEXT: Final = 4096  # bytes of one name; the longest path that Linux opens
_MAX_TAGS: Final = 16_384  # dynamic entries; real libraries have about forty


@dataclass(frozen=True, slots=True)
class Dynamic:
    """The dynamic entries of one file."""

    values: dict[int, int]
    """The last value of each tag: that is the one that glibc and musl take."""
    texts: dict[int, list[str]]
    """Names by tag, in order: needed libraries, the own name, search paths."""
    twice: tuple[int, ...] = ()
    """Tags that stand more than once with different values, although one is allowed."""
    complete: bool = True
    """False if the array is longer than is read, or ends outside the file."""


def check_views(elf: Elf, dynamic: Dynamic, shown: int) -> Iterator[str]:
    """Yield how the section headers mislead; `shown` is how many dynamic symbols a reader found."""
    arrays = [segment for segment in elf.segments if segment.type == _PT_DYNAMIC]
    if len(arrays) != 1:
        yield f"there are {len(arrays) or 'no'} dynamic segments"
    if not elf.sections:
        yield "there are no section headers"
    if any(elf.file_offset(segment.address) != segment.offset for segment in arrays):
        yield "the dynamic segment is loaded from another place than it says"
    if not dynamic.complete:
        yield "the dynamic array has no end"
    for tag in dynamic.twice:
        yield f"the dynamic tag {tag:#x} stands twice"
    for section in elf.sections:
        if section.type == _SHT_DYNAMIC and section.offset not in {s.offset for s in arrays}:
            yield f"the section {section.name} is not the dynamic segment"
        if section.type == _SHT_DYNSYM and section.address != dynamic.values.get(_DT_SYMTAB):
            yield f"the section {section.name} is not the symbol table of the loader"
    yield from _check_count(elf, dynamic.values, shown)


def read_dynamic(elf: Elf) -> Dynamic:
    """Return the dynamic entries up to the first DT_NULL; empty if there are none."""
    # The loader takes the last such segment, and goes by its address.
    segment = next((s for s in reversed(elf.segments) if s.type == _PT_DYNAMIC), None)
    start = None if segment is None else elf.file_offset(segment.address)
    if start is None:
        return Dynamic({}, {tag: [] for tag in _NAMED})
    entries, complete = _entries(elf.data, start)
    values = dict(entries)
    texts: dict[int, list[str]] = {tag: [] for tag in _NAMED}
    table = elf.file_offset(values.get(_DT_STRTAB, 0))
    for tag, value in entries:
        if tag in texts and table is not None:
            texts[tag].append(_text(elf, table + value))
    different = {tag for tag, value in entries if value != values[tag] and tag not in _MANY}
    return Dynamic(values, texts, tuple(sorted(different)), complete)


def _entries(data: memoryview, start: int) -> tuple[list[tuple[int, int]], bool]:
    entries: list[tuple[int, int]] = []
    end = min(start + _MAX_TAGS * _DYN.size, len(data) - _DYN.size + 1)
    for at in range(start, end, _DYN.size):
        tag, value = _DYN.unpack_from(data, at)
        if tag == _DT_NULL:
            return entries, True
        entries.append((tag, value))
    return entries, False


def _check_count(elf: Elf, values: dict[int, int], shown: int) -> Iterator[str]:
    used = max(
        _symbols_used(elf, values.get(_DT_RELA), values.get(_DT_RELASZ, 0)),
        _symbols_used(elf, values.get(_DT_JMPREL), values.get(_DT_PLTRELSZ, 0)),
    )
    listed = [s.size // _SYMBOL_SIZE for s in elf.sections if s.type == _SHT_DYNSYM]
    if used > min([shown, *listed]):
        yield f"relocations use {used} dynamic symbols, {min([shown, *listed])} are shown"


def _text(elf: Elf, at: int) -> str:
    content = bytes(elf.data[at : at + _MAX_TEXT])
    return content.partition(b"\0")[0].decode("utf-8", "backslashreplace")


def _symbols_used(elf: Elf, address: int | None, size: int) -> int:
    """Return one more than the highest symbol number that a relocation table names."""
    offset = None if address is None else elf.file_offset(address)
    if offset is None or offset + size > len(elf.data):
        return 0
    table = elf.data[offset : offset + size - size % _RELA.size]
    return max((symbol + 1 for _, _, symbol, _ in _RELA.iter_unpack(table) if symbol), default=0)
