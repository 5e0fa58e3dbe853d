"""A strict, minimal reader of ELF64 little-endian files (System V gABI, chapters 4 and 5).

Every table and every string is checked against the file before it is touched; what does not fit is
recorded as damage and left out, never raised. Contents are handed out as slices of the caller's
memory, not copied (string tables excepted, up to `MAX_STRINGS`). The work is linear in the file
size whatever the headers claim.

It does not interpret host code, apply relocations, demangle, or read ELF32 and big-endian files:
these are recognised and reported.
"""

from __future__ import annotations

from bisect import bisect_right
from operator import itemgetter
from typing import TYPE_CHECKING, Final

from kgate_core.evidence import Finding, Severity
from kgate_scanner.elf_records import (
    ET_REL,
    NHDR,
    RELA,
    RELATIVE,
    SHT_NOTE,
    SHT_RELA,
    SYM,
    Damage,
    Header,
    Note,
    Section,
    Segment,
    Symbol,
)
from kgate_scanner.elf_tables import ElfTables
from kgate_scanner.filekind import FileKind, identify
from kgate_scanner.rules import Rule

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "RULES",
    "SHT_NOTE",
    "Damage",
    "Elf",
    "FileKind",
    "Header",
    "Note",
    "Section",
    "Segment",
    "Symbol",
    "identify",
]

DAMAGED: Final = Rule(
    "KG-ELF-001",
    Severity.HIGH,
    "Damaged ELF file",
    "A header, table or name points outside the file or contradicts another. Loaders and scanners "
    "may then see different contents in the same bytes.",
    "Rebuild the file with an unmodified toolchain, or refuse it.",
)
RULES: Final = (DAMAGED,)

_MODULE_SECTIONS: Final = frozenset(
    {".modinfo", "__versions", ".gnu.linkonce.this_module", "__ksymtab", "__ksymtab_gpl"}
)


class Elf(ElfTables):
    """One ELF64 file in memory; construction reads headers and names and never raises."""

    @property
    def kind(self) -> FileKind:
        """What the file is, told by header and section names."""
        kind = identify(bytes(self.data[:64]))
        if kind is FileKind.ELF_OBJECT and any(s.name in _MODULE_SECTIONS for s in self.sections):
            return FileKind.KERNEL_MODULE
        return kind

    @property
    def is_relocatable(self) -> bool:
        """True for ET_REL, whose addresses mean nothing yet."""
        return self.header is not None and self.header.type == ET_REL

    def findings(self, path: str) -> tuple[Finding, ...]:
        """Return the damage seen so far as findings about `path`."""
        found = [DAMAGED.finding(path, seen, offset=offset) for seen, offset in self.damage]
        if self.damage_count > len(found):
            more = f"{self.damage_count - len(found)} more places are damaged"
            found.append(DAMAGED.finding(path, more))
        return tuple(found)

    def named(self, name: str) -> tuple[Section, ...]:
        """Return all sections of that name, in the order of the table."""
        return tuple(section for section in self.sections if section.name == name)

    def content(self, section: Section) -> memoryview:
        """Return the bytes of a section without copying; empty for SHT_NOBITS and bad ranges."""
        end = section.offset + section.size
        if section.type in self._no_bytes or end > len(self.data):
            return self.data[:0]
        return self.data[section.offset : end]

    def file_offset(self, address: int) -> int | None:
        """Return the file offset that PT_LOAD maps to a virtual address, or None."""
        number = bisect_right(self._loads, address, key=itemgetter(0)) - 1
        if number < 0:
            return None
        start, size, offset = self._loads[number]
        return offset + address - start if address < start + size else None

    def symbols(self, table: Section, *, other: int = 0) -> Iterator[Symbol]:
        """Yield the symbols whose st_other has all bits of `other`; a bad name is empty."""
        content = self.content(table)
        usable = len(content) - len(content) % SYM.size
        if usable != len(content):
            self._damaged(f"symbol table {table.name} ends within a symbol", table.offset)
        names = self._string_table(table.link, table.name)
        for number, fields in enumerate(SYM.iter_unpack(content[:usable])):
            if fields[2] & other == other:
                name = self._text(names, fields[0])
                yield Symbol(number, name, *fields[1:])

    def notes(self, section: Section) -> Iterator[Note]:
        """Yield the notes of one SHT_NOTE section, 4-byte aligned (gABI, "Note Section")."""
        content = self.content(section)
        at = 0
        while at + NHDR.size <= len(content):
            owner_size, size, kind = NHDR.unpack_from(content, at)
            start = at + NHDR.size + _aligned(owner_size)
            if start + size > len(content):
                self._damaged(f"a note in {section.name} ends outside it", section.offset + at)
                return
            self._notes_left -= NHDR.size + size
            if self._notes_left < 0:
                self._damaged("notes share bytes", section.offset + at)
                return
            owner = bytes(content[at + NHDR.size : at + NHDR.size + min(owner_size, 64)])
            text = owner.rstrip(b"\0").decode("ascii", "replace")
            yield Note(text, kind, content[start : start + size], section.offset + start)
            at = start + _aligned(size)

    def relative_relocations(self, low: int, high: int) -> dict[int, int]:
        """Return place -> addend of the RELATIVE relocations with `low <= place < high`."""
        wanted = RELATIVE.get(self.header.machine if self.header else 0)
        found: dict[int, int] = {}
        left = len(self.data)  # bytes; tables that share bytes must stay linear
        for section in self.sections:
            if section.type == SHT_RELA and not self.is_relocatable:
                content = self.content(section)
                left -= len(content)
                if left < 0:
                    self._damaged("relocation tables share bytes", section.offset)
                    break
                usable = len(content) - len(content) % RELA.size
                rows = RELA.iter_unpack(content[:usable])
                found |= {
                    at: add for at, kind, _, add in rows if low <= at < high and kind == wanted
                }
        return found

    def _string_table(self, index: int, user: str) -> bytes:
        if not 0 < index < len(self.sections):
            self._damaged(f"{user} names string table {index}, which does not exist", 0)
            return b""
        if index != self._strings[0]:
            section = self.sections[index]
            self._strings = (index, self._string_bytes(section.offset, section.size))
        return self._strings[1]


def _aligned(size: int) -> int:
    return (size + 3) & ~3
