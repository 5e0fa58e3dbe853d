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
_DT_NULL, _DT_PLTRELSZ, _DT_STRTAB, _DT_SYMTAB = 0, 2, 5, 6
_DT_RELA, _DT_RELASZ, _DT_JMPREL = 7, 8, 23
_DYN: Final = struct.Struct("<qQ")
_RELA: Final = struct.Struct("<QIIq")
_SYMBOL_SIZE: Final = 24
_MAX_TEXT: Final = 4096  # bytes of one name; the longest path that Linux opens
_MAX_TAGS: Final = 4096  # dynamic entries; real libraries have about forty


@dataclass(frozen=True, slots=True)
class Dynamic:
    """The dynamic entries of one file."""

    values: dict[int, int]
    """The first value of each tag, as the loader takes it."""
    texts: dict[int, list[str]]
    """Names by tag, in order: needed libraries, the own name, search paths."""


def check_views(elf: Elf, dynamic: Dynamic, shown: int) -> Iterator[str]:
    """Yield how the section headers mislead; `shown` is how many dynamic symbols a reader found."""
    segment = next((segment for segment in elf.segments if segment.type == _PT_DYNAMIC), None)
    if segment is None:
        yield "there is no dynamic segment"
        return
    if not elf.sections:
        yield "there are no section headers"
    tags = dynamic.values
    for section in elf.sections:
        if section.type == _SHT_DYNAMIC and section.offset != segment.offset:
            yield f"the section {section.name} is not the dynamic segment"
        if section.type == _SHT_DYNSYM and section.address != tags.get(_DT_SYMTAB):
            yield f"the section {section.name} is not the symbol table of the loader"
    used = max(
        _symbols_used(elf, tags.get(_DT_RELA), tags.get(_DT_RELASZ, 0)),
        _symbols_used(elf, tags.get(_DT_JMPREL), tags.get(_DT_PLTRELSZ, 0)),
    )
    listed = max(
        (s.size // _SYMBOL_SIZE for s in elf.sections if s.type == _SHT_DYNSYM), default=used
    )
    if used > min(shown, listed):
        yield f"relocations use {used} dynamic symbols, {min(shown, listed)} are shown"


def read_dynamic(elf: Elf) -> Dynamic:
    """Return the dynamic entries up to the first DT_NULL; empty if there are none."""
    entries = []
    segment = next((segment for segment in elf.segments if segment.type == _PT_DYNAMIC), None)
    if segment is not None:
        size = min(segment.file_size, _MAX_TAGS * _DYN.size)
        end = min(segment.offset + size, len(elf.data)) - _DYN.size + 1
        for at in range(segment.offset, end, _DYN.size):
            tag, value = _DYN.unpack_from(elf.data, at)
            if tag == _DT_NULL:
                break
            entries.append((tag, value))
    values: dict[int, int] = {}
    for tag, value in entries:
        values.setdefault(tag, value)
    texts: dict[int, list[str]] = {tag: [] for tag in _NAMED}
    table = elf.file_offset(values.get(_DT_STRTAB, 0))
    for tag, value in entries:
        if tag in texts and table is not None:
            texts[tag].append(_text(elf, table + value))
    return Dynamic(values, texts)


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
