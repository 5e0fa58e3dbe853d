"""The ELF reader: what it reads, and that damage is said and never raised."""

from __future__ import annotations

import struct

import pytest

from kgate_scanner.elf import Elf, FileKind
from tests.unit.scanner.device.builders import (
    AARCH64,
    BASE,
    ET_REL,
    NOTE,
    PROGBITS,
    RELA,
    STRTAB,
    SYMTAB,
    ElfFile,
    Sec,
    note,
    symtab,
)


def _elf(*sections: Sec, **fields: int) -> Elf:
    file = ElfFile(sections=list(sections))
    file.machine = fields.get("machine", file.machine)
    file.type = fields.get("type", file.type)
    return Elf(memoryview(file.build()))


def _said(elf: Elf) -> str:
    return "; ".join(seen for seen, _ in elf.damage)


def test_an_ordinary_file_is_read_without_damage() -> None:
    elf = _elf(Sec(".text", b"code"), Sec(".bss", size=4096, type=8))
    assert elf.damage == []
    assert elf.kind is FileKind.ELF
    assert [section.name for section in elf.sections] == ["", ".text", ".bss", ".shstrtab"]
    assert bytes(elf.content(elf.named(".text")[0])) == b"code"
    assert len(elf.content(elf.named(".bss")[0])) == 0


def test_contents_are_views_of_the_callers_memory() -> None:
    data = memoryview(ElfFile(sections=[Sec(".text", b"code")]).build())
    elf = Elf(data)
    assert elf.content(elf.named(".text")[0]).obj is data.obj


def test_addresses_are_mapped_by_the_loadable_segments() -> None:
    elf = _elf(Sec(".text", b"code"))
    assert elf.file_offset(BASE + 7) == 7
    assert elf.file_offset(BASE - 1) is None
    assert elf.file_offset(BASE + len(elf.data)) is None


def test_symbols_can_be_chosen_by_their_other_field() -> None:
    table, strings = symtab([("helper", 0x02, 0, 1), ("scale", 0x12, 0x10, 1)])
    elf = _elf(Sec(".strtab", strings, STRTAB, align=1), Sec(".symtab", table, SYMTAB, link=1))
    section = elf.named(".symtab")[0]
    assert [symbol.name for symbol in elf.symbols(section)] == ["", "helper", "scale"]
    (kernel,) = elf.symbols(section, other=0x10)
    assert (kernel.number, kernel.name, kernel.section, kernel.size) == (2, "scale", 1, 128)


def test_notes_are_listed_with_owner_and_place() -> None:
    elf = _elf(Sec(".note", note(b"AMDGPU", 32, b"abcde") + note(b"X", 1, b""), NOTE, align=4))
    first, second = elf.notes(elf.named(".note")[0])
    assert (first.owner, first.type, bytes(first.content)) == ("AMDGPU", 32, b"abcde")
    assert bytes(elf.data[first.offset : first.offset + 5]) == b"abcde"
    assert (second.owner, len(second.content)) == ("X", 0)


@pytest.mark.parametrize(("machine", "number"), [(62, 8), (AARCH64, 1027)])
def test_only_relative_relocations_within_the_range_are_returned(machine: int, number: int) -> None:
    rows = [(100, number, 7), (200, number, 8), (108, 1, 9)]
    rela = b"".join(struct.pack("<QIIq", place, kind, 0, to) for place, kind, to in rows)
    elf = _elf(Sec(".rela.dyn", rela, RELA), machine=machine)
    assert elf.relative_relocations(100, 200) == {100: 7}


@pytest.mark.parametrize("name", [".modinfo", "__versions", ".gnu.linkonce.this_module"])
def test_an_os_kernel_module_is_named_for_what_it_is(name: str) -> None:
    assert _elf(Sec(name, b"x"), type=ET_REL).kind is FileKind.KERNEL_MODULE
    assert _elf(Sec(".text", b"x"), type=ET_REL).kind is FileKind.ELF_OBJECT


@pytest.mark.parametrize("size", [0, 4, 63])
def test_too_few_bytes_are_damage(size: int) -> None:
    assert "too few" in _said(Elf(memoryview(ElfFile().build()[:size])))


@pytest.mark.parametrize(
    ("at", "value", "said"),
    [
        (0, b"\x7fELG", "magic"),
        (4, b"\x01", "class 1"),
        (5, b"\x02", "data encoding 2"),
        (40, b"\xff\xff\xff\xff\xff\xff\xff\x7f", "section headers"),
        (52, b"\x41", "claims 65 bytes"),
        (54, b"\x38\x01", "program headers of 312"),
        (58, b"\x20", "section headers of 32"),
        (60, b"\xff\xfe", "section headers at"),
        (62, b"\x99", "section names"),
    ],
)
def test_a_damaged_header_field_is_said(at: int, value: bytes, said: str) -> None:
    data = bytearray(ElfFile(sections=[Sec(".text", b"code")]).build())
    data[at : at + len(value)] = value
    assert said in _said(Elf(memoryview(bytes(data))))


def test_a_section_outside_the_file_is_damage_and_empty() -> None:
    elf = _elf(Sec(".text", b"code", size=1 << 40))
    assert ".text ends at" in _said(elf)
    assert len(elf.content(elf.named(".text")[0])) == 0


def test_sections_that_share_bytes_are_damage() -> None:
    assert "share bytes" in _said(_elf(Sec(".a", b"code", size=64), Sec(".b", b"more")))


def test_a_symbol_table_without_strings_yields_symbols_without_names() -> None:
    table, _ = symtab([("scale", 0x12, 0x10, 1)])
    elf = _elf(Sec(".symtab", table + b"odd", SYMTAB, link=77))
    assert [symbol.name for symbol in elf.symbols(elf.named(".symtab")[0])] == ["", ""]
    assert "string table 77" in _said(elf)
    assert "ends within a symbol" in _said(elf)


def test_a_note_that_leaves_its_section_is_damage() -> None:
    elf = _elf(Sec(".note", struct.pack("<III", 4, 900, 1) + b"GNU\0", NOTE, align=4))
    assert list(elf.notes(elf.named(".note")[0])) == []
    assert "a note in .note ends outside it" in _said(elf)


def test_a_program_header_outside_the_file_is_damage() -> None:
    data = bytearray(ElfFile().build())
    data[64 + 32 : 64 + 40] = struct.pack("<Q", 1 << 50)
    assert "program header 0 ends at" in _said(Elf(memoryview(bytes(data))))


def test_large_section_counts_are_read_from_section_zero() -> None:
    file = ElfFile(sections=[Sec(".text", b"code")])
    data = bytearray(file.build())
    shoff = struct.unpack_from("<Q", data, 40)[0]
    count, names = struct.unpack_from("<HH", data, 60)
    data[60:64] = struct.pack("<HH", 0, 0xFFFF)
    data[shoff + 32 : shoff + 40] = struct.pack("<Q", count)
    data[shoff + 40 : shoff + 44] = struct.pack("<I", names)
    elf = Elf(memoryview(bytes(data)))
    assert elf.damage == []
    assert [section.name for section in elf.sections] == ["", ".text", ".shstrtab"]


def test_an_absurd_section_count_is_refused_before_anything_is_read() -> None:
    data = bytearray(ElfFile(sections=[Sec(".text", b"code")]).build())
    shoff = struct.unpack_from("<Q", data, 40)[0]
    data[60:62] = bytes(2)
    data[shoff + 32 : shoff + 40] = struct.pack("<Q", 1 << 60)
    assert "are more than" in _said(Elf(memoryview(bytes(data))))


def test_one_name_shared_by_all_sections_costs_linear_work() -> None:
    long = "n" * 30_000
    data = bytearray(ElfFile(sections=[Sec(long), *(Sec("x") for _ in range(3000))]).build())
    shoff = struct.unpack_from("<Q", data, 40)[0]
    for number in range(2, 3002):
        data[shoff + 64 * number : shoff + 64 * number + 4] = struct.pack("<I", 1)
    elf = Elf(memoryview(bytes(data)))
    read = sum(len(section.name) for section in elf.sections)
    assert read < 10 * len(data) + 128 * 1024
    assert elf.damage_count > len(elf.damage)


def test_segments_that_overlap_are_damage() -> None:
    data = bytearray(ElfFile(sections=[Sec(".text", b"code")]).build())
    data[56:58] = struct.pack("<H", 2)  # the second header is the first one's copy
    data[120:120] = data[64:120]
    data[40:48] = struct.pack("<Q", struct.unpack_from("<Q", data, 40)[0] + 56)
    assert "overlap" in _said(Elf(memoryview(bytes(data))))


@pytest.mark.parametrize(("kind", "said"), [(RELA, "relocation tables"), (NOTE, "notes")])
def test_tables_that_share_bytes_cost_linear_work(kind: int, said: str) -> None:
    content = note(b"GNU", 3, bytes(20_000)) * 20
    tables = [Sec(".a", content, kind), *(Sec(".b", b"", kind, size=400_000) for _ in range(50))]
    data = bytearray(ElfFile(sections=tables).build())
    shoff = struct.unpack_from("<Q", data, 40)[0]
    for number in range(2, 52):
        data[shoff + 64 * number + 24 : shoff + 64 * number + 32] = struct.pack("<Q", 120)
    elf = Elf(memoryview(bytes(data)))
    elf.relative_relocations(0, 1 << 64)
    read = sum(len(note.content) for section in elf.sections[1:52] for note in elf.notes(section))
    assert read <= 9 * len(data) + 64 * 1024
    assert said in _said(elf)


def test_damage_becomes_findings_with_a_count_of_what_is_not_listed() -> None:
    elf = _elf(*(Sec(".x", b"", PROGBITS, size=1 << 40) for _ in range(100)))
    findings = elf.findings("lib.so")
    assert {finding.rule for finding in findings} == {"KG-ELF-001"}
    assert "more places are damaged" in findings[-1].seen
    assert len(findings) == 65
