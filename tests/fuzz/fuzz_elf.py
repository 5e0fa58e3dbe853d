"""Fuzzes the ELF reader."""

from __future__ import annotations

import struct

from kgate_scanner.elf import SHT_NOTE, Elf
from tests.fuzz.engine import main
from tests.unit.scanner.device.builders import (
    NOTE,
    RELA,
    STRTAB,
    SYMTAB,
    ElfFile,
    Sec,
    cubin,
    fatbin,
    host,
    note,
    symtab,
)

_TABLE, _STRINGS = symtab([("first", 0x12, 0, 1), ("second", 0x12, 0x10, 1)])
SEEDS = (
    ElfFile(
        sections=[
            Sec(".strtab", _STRINGS, STRTAB, align=1),
            Sec(".symtab", _TABLE, SYMTAB, link=1),
            Sec(".note", note(b"GNU", 3, b"build id"), NOTE, align=4),
            Sec(".rela.dyn", struct.pack("<QIIq", 64, 8, 0, 64) * 3, RELA),
        ]
    ).build(),
    cubin(),
    host(fatbin()),
)


def read_everything(data: bytes) -> None:
    """Touch every table of the file."""
    elf = Elf(memoryview(data))
    elf.findings("lib.so")
    elf.relative_relocations(0, 1 << 64)
    assert elf.kind
    for section in elf.sections:
        assert len(elf.content(section)) <= len(data)
        list(elf.symbols(section))
        elf.file_offset(section.address)
        if section.type == SHT_NOTE:
            list(elf.notes(section))


if __name__ == "__main__":
    main(read_everything, SEEDS)
