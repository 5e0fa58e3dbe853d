from __future__ import annotations

import io
import marshal
import pickle
import struct
import zipfile

import pytest

from kgate_scanner.files import Kind, identify
from tests.repos import kernel_module
from tests.scankit import build_library


def pe() -> bytes:
    head = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x80)
    return head.ljust(0x80, b"\0") + b"PE\0\0".ljust(64, b"\0")


def archive() -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as opened:
        opened.writestr("inside.py", "print(1)\n")
    return data.getvalue()


BYTECODE = b"\xa7\r\r\n" + bytes(12) + marshal.dumps(compile("1", "x", "eval"))
CASES = {
    "library": (build_library(), "a.so", Kind.LIBRARY, ()),
    "module": (kernel_module(), "helper.ko", Kind.KERNEL_MODULE, ("KG-FILE-002",)),
    "module by another name": (kernel_module(), "a.so", Kind.KERNEL_MODULE, ("KG-FILE-002",)),
    "packed module": (
        b"\xfd7zXZ\x00" + bytes(20),
        "a.ko.xz",
        Kind.ARCHIVE,
        ("KG-FILE-002", "KG-FILE-007"),
    ),
    "pe": (pe(), "a.dll", Kind.PE, ("KG-FILE-003",)),
    "mach-o": (b"\xcf\xfa\xed\xfe" + bytes(60), "a.dylib", Kind.MACHO, ("KG-FILE-004",)),
    "script as library": (b"#!/bin/sh\nid\n", "a.so", Kind.SCRIPT, ("KG-FILE-005", "KG-FILE-011")),
    "text as library": (b"hello\n", "a.so.1", Kind.TEXT, ("KG-FILE-005",)),
    "script": (b"#!/bin/sh\nid\n", "run", Kind.SCRIPT, ("KG-FILE-011",)),
    "python with a shebang": (b"#!/usr/bin/python\n", "run.py", Kind.PYTHON, ()),
    "bytecode": (BYTECODE, "__pycache__/a.cpython-311.pyc", Kind.BYTECODE, ("KG-FILE-001",)),
    "anything in a bytecode cache": (b"x", "__pycache__/a.txt", Kind.BYTECODE, ("KG-FILE-001",)),
    "sourceless bytecode": (BYTECODE, "a.pyc", Kind.BYTECODE, ("KG-FILE-001",)),
    "redirect": (b'kind = "redirect"\n', "kernel-status.toml", Kind.TEXT, ("KG-FILE-006",)),
    "zip": (archive(), "a.bin", Kind.ARCHIVE, ("KG-FILE-007",)),
    "gzip": (b"\x1f\x8b\x08" + bytes(20), "a.gz", Kind.ARCHIVE, ("KG-FILE-007",)),
    "tar": (bytes(257) + b"ustar\x0000", "a", Kind.ARCHIVE, ("KG-FILE-007",)),
    "torch checkpoint": (archive(), "a.pt", Kind.PICKLE, ("KG-FILE-012",)),
    "pickle": (pickle.dumps([1]), "table.bin", Kind.PICKLE, ("KG-FILE-012",)),
    "static archive": (b"!<arch>\n", "a.a", Kind.STATIC_ARCHIVE, ("KG-FILE-009",)),
    "start-up hook": (b"", "sitecustomize.py", Kind.PYTHON, ("KG-FILE-014",)),
    "path file": (b"import os\n", "x.pth", Kind.TEXT, ("KG-FILE-014",)),
    "ptx": (b".version 8.7\n.target sm_90\n", "a.ptx", Kind.DEVICE, ("KG-FILE-013",)),
    "spir-v": (b"\x03\x02\x23\x07" + bytes(16), "a.spv", Kind.DEVICE, ("KG-FILE-013",)),
    "wasm": (b"\0asm\1\0\0\0", "a.wasm", Kind.CODE, ("KG-FILE-016",)),
    "metadata": (b"{}", "metadata.json", Kind.METADATA, ()),
    "metadata elsewhere": (b"{}", "inner/metadata.json", Kind.TEXT, ()),
    "signature": (b"{}", "metadata.json.sigstore", Kind.SIGNATURE, ()),
    "text": ("äöü €".encode() * 2000, "notes.txt", Kind.TEXT, ()),
    "data": (bytes(range(256)), "table.bin", Kind.DATA, ()),
    "latin-1": (b"caf\xe9 au lait", "notes.txt", Kind.DATA, ()),
    "nothing": (b"", "empty.txt", Kind.EMPTY, ()),
}


@pytest.mark.parametrize("case", CASES)
def test_content_decides_what_a_file_is_and_names_only_raise_suspicion(case: str) -> None:
    data, path, kind, expected = CASES[case]
    found = identify(memoryview(data), path)
    assert found.kind is kind
    assert {finding.rule for finding in found.findings} == set(expected)


def test_a_kernel_module_is_called_what_it_is() -> None:
    (finding,) = identify(memoryview(kernel_module()), "helper.ko").findings
    assert finding.seen == "this is an operating-system kernel module, not a GPU compute kernel"
    assert finding.severity.label == "critical"


@pytest.mark.parametrize(("elf_type", "kind"), [(2, Kind.PROGRAM), (4, Kind.PROGRAM)])
def test_an_elf_file_that_is_no_library_is_a_program(elf_type: int, kind: Kind) -> None:
    data = bytearray(build_library())
    struct.pack_into("<H", data, 16, elf_type)
    found = identify(memoryview(data), "tool")
    assert found.kind is kind
    assert [finding.rule for finding in found.findings] == ["KG-FILE-008"]


def test_an_object_file_without_the_marks_of_a_module_is_a_leftover() -> None:
    data = bytearray(build_library())
    struct.pack_into("<H", data, 16, 1)
    assert identify(memoryview(data), "a.o").kind is Kind.OBJECT


def test_an_elf_file_of_another_class_is_recognised_but_not_read() -> None:
    data = bytearray(build_library())
    data[4] = 1
    found = identify(memoryview(data), "a.so")
    assert (found.kind, found.findings[0].rule) == (Kind.FOREIGN_ELF, "KG-FILE-016")


@pytest.mark.parametrize(
    ("system", "rule"),
    [("linux", "KG-FILE-003"), ("windows", "KG-FILE-016"), (None, "KG-FILE-016")],
)
def test_a_windows_binary_is_expected_in_windows_variants_only(
    system: str | None, rule: str
) -> None:
    (finding,) = identify(memoryview(pe()), "a.pyd", system=system).findings
    assert finding.rule == rule
