"""Compares what the loader reads with what the section headers show (System V gABI, chapter 5).

The loader goes by program headers and the dynamic array alone; most tools, LIEF among them, lean on
section headers. A file whose two views differ was made to be misread. Nothing is interpreted here
beyond counting symbols.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kgate_scanner.elf import Elf

_PT_DYNAMIC: Final = 2
_SHT_DYNAMIC, _SHT_DYNSYM = 6, 11
_DT_NULL, _DT_PLTRELSZ, _DT_SYMTAB, _DT_RELA, _DT_RELASZ, _DT_JMPREL = 0, 2, 6, 7, 8, 23
_DYN: Final = struct.Struct("<qQ")
_RELA: Final = struct.Struct("<QIIq")
_SYMBOL_SIZE: Final = 24
_MAX_TAGS: Final = 4096  # dynamic entries; real libraries have about forty


def check_views(elf: Elf, shown: int) -> Iterator[str]:
    """Yield how the section headers mislead; `shown` is how many dynamic symbols a reader found."""
    dynamic = next((segment for segment in elf.segments if segment.type == _PT_DYNAMIC), None)
    if dynamic is None:
        yield "there is no dynamic segment"
        return
    if not elf.sections:
        yield "there are no section headers"
    tags = _tags(elf, dynamic.offset, dynamic.file_size)
    for section in elf.sections:
        if section.type == _SHT_DYNAMIC and section.offset != dynamic.offset:
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


def _tags(elf: Elf, offset: int, size: int) -> dict[int, int]:
    """Return the dynamic entries by tag, the first of each, as the loader reads them."""
    tags: dict[int, int] = {}
    end = min(offset + size, len(elf.data) - _DYN.size + 1, offset + _MAX_TAGS * _DYN.size)
    for at in range(offset, end, _DYN.size):
        tag, value = _DYN.unpack_from(elf.data, at)
        if tag == _DT_NULL:
            break
        tags.setdefault(tag, value)
    return tags


def _symbols_used(elf: Elf, address: int | None, size: int) -> int:
    """Return one more than the highest symbol number that a relocation table names."""
    offset = None if address is None else elf.file_offset(address)
    if offset is None or offset + size > len(elf.data):
        return 0
    table = elf.data[offset : offset + size - size % _RELA.size]
    return max((symbol + 1 for _, _, symbol, _ in _RELA.iter_unpack(table) if symbol), default=0)
