"""The records of an ELF64 little-endian file as stored (System V gABI, chapters 4 and 5).

Layouts and names only: `elf` reads and checks them.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

EHDR: Final = struct.Struct("<16sHHIQQQIHHHHHH")
SHDR: Final = struct.Struct("<IIQQQQIIQQ")
PHDR: Final = struct.Struct("<IIQQQQQQ")
SYM: Final = struct.Struct("<IBBHQQ")
RELA: Final = struct.Struct("<QIIq")
NHDR: Final = struct.Struct("<III")

ET_REL: Final = 1
SHT_RELA: Final = 4
SHT_NOTE: Final = 7
SHT_NOBITS: Final = 8
SHN_XINDEX: Final = 0xFFFF
PN_XNUM: Final = 0xFFFF
PT_LOAD: Final = 1
EM_X86_64: Final = 62
EM_AARCH64: Final = 183
EM_CUDA: Final = 190
RELATIVE: Final = {EM_X86_64: 8, EM_AARCH64: 1027}
"""Machine -> number of its RELATIVE relocation (psABI of each)."""
NOBITS: Final = frozenset({0, SHT_NOBITS})
CUDA_NOBITS: Final = NOBITS | {0x70000007, 0x70000009, 0x7000000A, 0x70000015}
"""Sections of cubins without bytes: global, local, shared and reserved shared memory (observed)."""
CUDA_ALIASES: Final = ".nv.merc."
"""Second names that Blackwell cubins give to bytes of other sections."""


class FileHeader(NamedTuple):
    """The ELF header as stored."""

    ident: bytes
    type: int
    machine: int
    version: int
    entry: int
    phoff: int
    shoff: int
    flags: int
    ehsize: int
    phentsize: int
    phnum: int
    shentsize: int
    shnum: int
    shstrndx: int


class Damage(NamedTuple):
    """One thing that is wrong with the file and where (byte offset)."""

    seen: str
    offset: int


class Header(NamedTuple):
    """The fields of the ELF header that say what the file is."""

    os_abi: int
    abi_version: int
    type: int
    machine: int
    version: int
    entry: int
    flags: int


class Section(NamedTuple):
    """One section header with its name; offset and size are as claimed, see `Elf.content`."""

    number: int
    name: str
    type: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    align: int
    entry_size: int


class Segment(NamedTuple):
    """One program header."""

    type: int
    flags: int
    offset: int
    address: int
    physical: int
    file_size: int
    memory_size: int
    align: int


class Symbol(NamedTuple):
    """One symbol; `number` is its place in the table, `section` where it is defined."""

    number: int
    name: str
    info: int
    other: int
    section: int
    value: int
    size: int


class Note(NamedTuple):
    """One entry of a note section."""

    owner: str
    type: int
    content: memoryview
    offset: int
