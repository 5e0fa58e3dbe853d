"""Reads headers, sections, names and segments of an ELF64 little-endian file, checking each range.

The tables that lie inside sections (symbols, notes, relocations) are read by `elf`.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final

from kgate_scanner.elf_records import (
    CUDA_ALIASES,
    CUDA_NOBITS,
    EHDR,
    EM_CUDA,
    NOBITS,
    PHDR,
    PN_XNUM,
    PT_LOAD,
    SHDR,
    SHN_XINDEX,
    Damage,
    FileHeader,
    Header,
    Section,
    Segment,
)

if TYPE_CHECKING:
    import struct

MAX_SECTIONS: Final = 1 << 18  # headers; large cubins have some thousands
MAX_STRINGS: Final = 256 * 1024**2  # bytes of one string table
MAX_NAME: Final = 32 * 1024  # bytes of one name; the longest seen has 1,764
MAX_DAMAGE: Final = 64  # entries kept; the rest is counted


class ElfTables:
    """The tables of one file in memory; construction reads them all and never raises."""

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
