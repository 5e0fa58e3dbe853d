"""Cubins of both ABIs: targets, toolkits, tools, kernels, damage."""

from __future__ import annotations

import pytest

from kgate_scanner.device import code
from kgate_scanner.device import cubin as cubin_reader
from kgate_scanner.device.cubin import read_cubin
from tests.unit.scanner.device.builders import (
    CUDA,
    ET_REL,
    NOTE,
    STRTAB,
    SYMTAB,
    ElfFile,
    Kernel,
    Sec,
    cubin,
    note,
    symtab,
)


@pytest.mark.parametrize(
    ("sm", "abi", "accelerated", "target"),
    [
        (70, 7, False, "sm_70"),
        (90, 7, True, "sm_90a"),
        (90, 8, True, "sm_90a"),
        (100, 8, False, "sm_100"),
        (120, 8, False, "sm_120"),
    ],
)
def test_the_target_is_read_from_both_abis(
    sm: int, abi: int, *, accelerated: bool, target: str
) -> None:
    read = read_cubin(memoryview(cubin(sm, abi=abi, accelerated=accelerated)))
    assert (read.target, read.damage) == (target, ())


def test_the_toolkit_of_abi_7_is_its_elf_version() -> None:
    assert read_cubin(memoryview(cubin(toolkit=118))).toolkit == "11.8"


def test_tools_are_kept_in_their_own_words() -> None:
    read = read_cubin(memoryview(cubin(abi=8, tool_args="-arch sm_90 -m 64")))
    (tool,) = read.tools
    assert (tool.name, tool.args, tool.build) == ("ptxas", "-arch sm_90 -m 64", "b1")
    assert "release 12.8" in tool.version
    assert read.toolkit == "12.8"


def test_the_toolkit_comes_from_the_cuda_note_if_no_tool_says_it() -> None:
    content = (2).to_bytes(2, "little") + (90).to_bytes(2, "little") + (132).to_bytes(4, "little")
    sections = [Sec(".note.nv.cuinfo", note(b"NVIDIA Corp", 1000, content), NOTE, align=4)]
    data = ElfFile(CUDA, 2, 0x41, 8, 1, 90 << 8, sections).build()
    assert read_cubin(memoryview(data)).toolkit == "13.2"


def test_a_tool_note_that_does_not_hold_its_strings_is_damage() -> None:
    sections = [Sec(".note.nv.tkinfo", note(b"NVIDIA Corp", 2000, b"\xff" * 24), NOTE, align=4)]
    data = ElfFile(CUDA, 2, 0x41, 8, 1, 90 << 8, sections).build()
    read = read_cubin(memoryview(data))
    assert read.damage == ("a tool note does not hold its strings",)
    assert read.tools == ()


def test_debug_and_relocatable_builds_are_marked() -> None:
    plain = read_cubin(memoryview(cubin()))
    assert (plain.debug, plain.relocatable) == (False, False)
    assert read_cubin(memoryview(cubin(debug=True))).debug
    assert read_cubin(memoryview(cubin(kind=ET_REL))).relocatable


def test_only_entry_functions_are_kernels() -> None:
    read = read_cubin(memoryview(cubin(kernels=(Kernel("a"), Kernel("b")))))
    assert [kernel.name for kernel in read.kernels] == ["a", "b"]


def test_an_unknown_abi_is_damage() -> None:
    data = bytearray(cubin())
    data[7] = 0x99
    read = read_cubin(memoryview(bytes(data)))
    assert read.target == ""
    assert "unknown ABI 0x99" in read.damage[-1]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\x04\x05\xff\xff1234", "ends outside its section"),
        (b"\x09\x05\x00\x00", "format 9"),
    ],
)
def test_a_damaged_kernel_attribute_is_said(content: bytes, said: str) -> None:
    data = cubin(kernels=(Kernel("a"),))
    broken = data.replace(b"\x03\x19\x30\x00\x04\x05\x0c\x00", content[:8].ljust(8, b"\0"))
    assert broken != data
    read = read_cubin(memoryview(broken))
    assert any(said in text for text in read.damage)
    assert [kernel.name for kernel in read.kernels] == ["a"]


def test_a_tool_note_that_is_too_short_is_damage() -> None:
    sections = [Sec(".note.nv.tkinfo", note(b"NVIDIA Corp", 2000, b"short"), NOTE, align=4)]
    data = ElfFile(CUDA, 2, 0x41, 8, 1, 90 << 8, sections).build()
    assert read_cubin(memoryview(data)).damage == ("a tool note does not hold its strings",)


def test_the_largest_stack_counts_if_no_smallest_is_stated() -> None:
    data = cubin(kernels=(Kernel("a", stack=64),))
    changed = data.replace(b"\x04\x12\x08\x00", b"\x04\x23\x08\x00")
    assert changed != data
    assert read_cubin(memoryview(changed)).kernels[0].stack == 64


def test_kernels_that_are_only_declared_are_not_listed() -> None:
    table, strings = symtab([("declared", 0x12, 0x10, 0), ("data", 0x11, 0x10, 1)])
    sections = [
        Sec(".strtab", strings, STRTAB, align=1),
        Sec(".symtab", table, SYMTAB, link=1),
    ]
    data = ElfFile(CUDA, 2, 0x41, 8, 1, 90 << 8, sections).build()
    assert read_cubin(memoryview(data)).kernels == ()


def test_kernels_beyond_the_limit_of_an_image_are_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "MAX_KERNELS", 2)
    monkeypatch.setattr(cubin_reader, "_MAX_SYMBOL_FACTS", 4)
    read = read_cubin(memoryview(cubin(kernels=tuple(Kernel(f"k{i}") for i in range(9)))))
    assert [kernel.name for kernel in read.kernels] == ["k0", "k1"]
    assert "more than 2 kernels in one image" in read.damage
    assert "more kernel attributes than kernels" in read.damage


def test_static_kernels_of_one_name_keep_their_own_resources() -> None:
    kernels = (Kernel("same", 32, shared=64), Kernel("same", 64, shared=128))
    read = read_cubin(memoryview(cubin(kernels=kernels)))
    assert [(k.name, k.registers, k.shared) for k in read.kernels] == [
        ("same", 32, 64),
        ("same", 64, 128),
    ]
    assert read.damage == ()


def test_a_section_linked_to_another_kernel_is_damage() -> None:
    data = cubin(kernels=(Kernel("a"), Kernel("b")))
    swapped = data.replace(b".nv.info.a\0", b".nv.info.b\0")
    assert ".nv.info.b is linked to the code of a" in read_cubin(memoryview(swapped)).damage


def test_variants_exist_since_hopper_only() -> None:
    assert read_cubin(memoryview(cubin(60, accelerated=True))).target == "sm_60"


def test_bytes_that_are_no_elf_are_damage() -> None:
    assert read_cubin(memoryview(b"no elf")).damage == ("6 bytes are too few for an ELF header",)
