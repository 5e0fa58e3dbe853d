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
from itertools import pairwise
from operator import itemgetter
from typing import TYPE_CHECKING, Final

from kgate_core.evidence import Finding, Severity
from kgate_scanner.elf_records import (
    CUDA_ALIASES,
    CUDA_NOBITS,
    EHDR,
    EM_CUDA,
    ET_REL,
    NHDR,
    NOBITS,
    PHDR,
    PN_XNUM,
    PT_LOAD,
    RELA,
    RELATIVE,
    SHDR,
    SHN_XINDEX,
    SHT_NOTE,
    SHT_RELA,
    SYM,
    Damage,
    FileHeader,
    Header,
    Note,
    Section,
    Segment,
    Symbol,
)
from kgate_scanner.filekind import FileKind, identify
from kgate_scanner.rules import Rule

if TYPE_CHECKING:
    import struct
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

MAX_SECTIONS: Final = 1 << 18  # headers; large cubins have some thousands
MAX_STRINGS: Final = 256 * 1024**2  # bytes of one string table
MAX_NAME: Final = 32 * 1024  # bytes of one name; the longest mangled names are near 10 KiB
MAX_DAMAGE: Final = 64  # entries kept; the rest is counted

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


class Elf:
    """One ELF64 file in memory; construction reads headers and names and never raises."""

    def __init__(self, data: memoryview) -> None:
        self.data: Final = data
        self.damage: Final[list[Damage]] = []
        self.damage_count = 0
        self.header: Header | None = None
        self.sections: tuple[Section, ...] = ()
        self.segments: tuple[Segment, ...] = ()
        self._notes_left = 64 * 1024 + 8 * len(data)  # bytes; the same for overlapping notes
        self._loads: list[tuple[int, int, int]] = []  # address, size in the file, offset
        self._no_bytes = NOBITS
        self._strings: tuple[int, bytes] = (0, b"")
        self._names_left = 64 * 1024 + 8 * len(data)  # bytes; overlapping names must stay linear
        self._read()

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

    def _read(self) -> None:
        """Read all tables in five steps; each stops at its own damage."""
        # 1: a header of the one flavour that is read here
        head = self._read_header()
        if head is None:
            return
        # 2: the section table, with the escapes for large counts in section 0 (gABI, "Sections")
        table, phnum = None, head.phnum
        first = self._table(head.shoff, 1, head.shentsize, SHDR, "section") if head.shoff else None
        if first is not None:
            zero = SHDR.unpack(first)
            phnum = zero[7] if phnum == PN_XNUM else phnum
            count = head.shnum or zero[5]
            table = self._table(head.shoff, count, head.shentsize, SHDR, "section")
            # 3: names come from the table that section `shstrndx` holds
            if table is not None:
                self._read_sections(
                    table, zero[6] if head.shstrndx == SHN_XINDEX else head.shstrndx
                )
        # 4: program headers
        if phnum:
            self._read_segments(self._table(head.phoff, phnum, head.phentsize, PHDR, "program"))
        # 5: no two sections may claim the same bytes
        self._check_overlaps()

    def _read_header(self) -> FileHeader | None:
        if len(self.data) < EHDR.size:
            self._damaged(f"{len(self.data)} bytes are too few for an ELF header", 0)
            return None
        head = FileHeader._make(EHDR.unpack_from(self.data, 0))
        ident = head.ident
        if ident[:4] != b"\x7fELF":
            self._damaged("the ELF magic is missing", 0)
            return None
        if ident[4:6] != b"\x02\x01":
            self._damaged(f"ELF class {ident[4]} with data encoding {ident[5]} is not read", 4)
            return None
        if head.ehsize != EHDR.size:
            self._damaged(f"the ELF header claims {head.ehsize} bytes", 52)
        self._no_bytes = CUDA_NOBITS if head.machine == EM_CUDA else NOBITS
        self.header = Header(
            ident[7], ident[8], head.type, head.machine, head.version, head.entry, head.flags
        )
        return head

    def _read_segments(self, table: memoryview | None) -> None:
        if table is None:
            return
        self.segments = tuple(map(Segment._make, PHDR.iter_unpack(table)))
        for number, segment in enumerate(self.segments):
            end = segment.offset + segment.file_size
            if end > len(self.data):
                seen = f"program header {number} ends at {end}, the file at {len(self.data)}"
                self._damaged(seen, min(segment.offset, len(self.data)))
        loads = (s for s in self.segments if s.type == PT_LOAD and s.file_size)
        self._loads = sorted((s.address, s.file_size, s.offset) for s in loads)
        for (address, size, offset), following in pairwise(self._loads):
            # All segments of a cubin start at 0: the driver places them.
            if address + size > following[0] and self._no_bytes is not CUDA_NOBITS:
                self._damaged(f"segments at {address:#x} and {following[0]:#x} overlap", offset)

    def _table(
        self, offset: int, count: int, size: int, layout: struct.Struct, what: str
    ) -> memoryview | None:
        if size != layout.size:
            self._damaged(f"{what} headers of {size} bytes", 54)
        elif count > MAX_SECTIONS:
            self._damaged(f"{count} {what} headers are more than {MAX_SECTIONS}", offset)
        elif offset + count * size > len(self.data):
            seen = f"{count} {what} headers at {offset} end outside the file of {len(self.data)}"
            self._damaged(f"{seen} bytes", min(offset, len(self.data)))
        else:
            return self.data[offset : offset + count * size]
        return None

    def _read_sections(self, table: memoryview, names_index: int) -> None:
        headers = list(SHDR.iter_unpack(table))
        if names_index >= len(headers):
            self._damaged(f"section names are said to be in section {names_index}", 62)
            names = b""
        else:
            names = self._string_bytes(headers[names_index][4], headers[names_index][5])
        size, no_bytes = len(self.data), self._no_bytes
        sections = []
        for number, row in enumerate(headers):
            kind, end = row[1], row[4] + row[5]
            name = self._text(names, row[0]) if kind else ""
            if end > size and kind not in no_bytes:
                seen = f"section {name or number} ends at {end}, the file at {size}"
                self._damaged(seen, min(row[4], size))
            sections.append(Section._make((number, name, *row[1:])))
        self.sections = tuple(sections)

    def _check_overlaps(self) -> None:
        held = sorted(
            (section.offset, section.size, section.number)
            for section in self.sections
            if section.size
            and section.type not in self._no_bytes
            and not section.name.startswith(CUDA_ALIASES)
        )
        end, holder = 0, 0
        for offset, size, index in held:
            if offset < end:
                first, second = self.sections[holder].name, self.sections[index].name
                self._damaged(f"sections {first} and {second} share bytes", offset)
            if offset + size > end:
                end, holder = offset + size, index

    def _string_table(self, index: int, user: str) -> bytes:
        if not 0 < index < len(self.sections):
            self._damaged(f"{user} names string table {index}, which does not exist", 0)
            return b""
        if index != self._strings[0]:
            section = self.sections[index]
            self._strings = (index, self._string_bytes(section.offset, section.size))
        return self._strings[1]

    def _string_bytes(self, offset: int, size: int) -> bytes:
        if offset + size > len(self.data) or size > MAX_STRINGS:
            self._damaged(
                f"a string table of {size} bytes does not fit", min(offset, len(self.data))
            )
            return b""
        return bytes(self.data[offset : offset + size])

    def _text(self, table: bytes, at: int) -> str:
        end = table.find(b"\0", at, at + MAX_NAME + 1)
        if end < 0 or self._names_left < 0:
            self._damaged(f"the name at {at} has no end within its string table", 0)
            return ""
        self._names_left -= end - at
        return table[at:end].decode("utf-8", "replace")

    def _damaged(self, seen: str, offset: int) -> None:
        self.damage_count += 1
        if len(self.damage) < MAX_DAMAGE:
            self.damage.append(Damage(seen, offset))


def _aligned(size: int) -> int:
    return (size + 3) & ~3
