"""Device code where toolchains put none, and files that are device code themselves."""

from __future__ import annotations

import mmap
import struct
from typing import TYPE_CHECKING

import pytest

from kgate_scanner.device import DeviceLimits, ImageKind, scan_device
from tests.unit.scanner.device.builders import (
    ElfFile,
    Sec,
    ccob,
    cubin,
    entry,
    fatbin,
    hip_bundle,
    host,
    hsaco,
    ptx,
    spirv,
    zebin,
)
from tests.unit.scanner.device.scanning import rules_of, said, scan

if TYPE_CHECKING:
    from pathlib import Path

METAL = b"MTLB" + bytes(12) + struct.pack("<Q", 256) + bytes(232)
HIDEABLE = [
    (fatbin(entry(cubin(90))), ImageKind.CUBIN, "sm_90"),
    (ccob(hip_bundle(("gfx90a", hsaco()))), ImageKind.HSACO, "gfx90a"),
    (hip_bundle(("gfx90a", hsaco())), ImageKind.HSACO, "gfx90a"),
    (cubin(90), ImageKind.CUBIN, "sm_90"),
    (hsaco(), ImageKind.HSACO, "gfx90a"),
    (zebin("scale"), ImageKind.ZEBIN, ""),
    (ptx(), ImageKind.PTX, "compute_90"),
    (spirv("scale", "add"), ImageKind.SPIRV, ""),
    (METAL, ImageKind.METALLIB, ""),
]
NAMES = ["fatbin", "ccob", "bundle", "cubin", "hsaco", "zebin", "ptx", "spirv", "metallib"]


@pytest.mark.parametrize(("content", "kind", "target"), HIDEABLE, ids=NAMES)
@pytest.mark.parametrize("shift", [0, 3])
def test_device_code_in_a_data_section_is_found_and_read(
    content: bytes, kind: ImageKind, target: str, shift: int
) -> None:
    data = ElfFile(sections=[Sec(".rodata", bytes(shift) + content + b"\0tail")]).build()
    found = scan(data)
    assert "KG-DEV-003" in rules_of(found)
    assert "in section .rodata" in said(found)
    assert [(image.kind, image.target, image.section) for image in found.images] == [
        (kind, target, ".rodata")
    ]
    assert found.complete


@pytest.mark.parametrize(("content", "kind", "target"), HIDEABLE, ids=NAMES)
def test_device_code_behind_all_sections_is_found(
    content: bytes, kind: ImageKind, target: str
) -> None:
    found = scan(ElfFile(sections=[Sec(".text", b"code")]).build() + content)
    assert "KG-DEV-003" in rules_of(found)
    assert "in no section" in said(found)
    assert [(image.kind, image.target) for image in found.images] == [(kind, target)]


@pytest.mark.parametrize(("content", "kind", "target"), HIDEABLE, ids=NAMES)
def test_a_file_that_is_device_code_is_read_as_such(
    content: bytes, kind: ImageKind, target: str
) -> None:
    found = scan(content)
    assert "KG-DEV-003" not in rules_of(found)
    assert [(image.kind, image.target, image.section) for image in found.images] == [
        (kind, target, "")
    ]


def test_device_code_next_to_ordinary_device_code_is_still_hidden() -> None:
    found = scan(host(fatbin(entry(cubin(80), arch=80)), extra=(Sec(".data", cubin(90)),)))
    assert rules_of(found) == ["KG-DEV-003"]
    assert [(image.section, image.target) for image in found.images] == [
        (".nv_fatbin", "sm_80"),
        (".data", "sm_90"),
    ]


def test_machine_code_in_an_elf_of_another_class_is_found_and_called_damaged() -> None:
    content = bytearray(cubin(90))
    content[4:7] = b"\x01\x01\x00"
    found = scan(b"text " + bytes(content))
    assert sorted(set(rules_of(found))) == ["KG-DEV-003", "KG-DEV-013"]
    assert "ELF class 1" in said(found)


def test_sections_behind_their_headers_belong_to_the_code() -> None:
    content = bytearray(cubin(60))
    shoff = struct.unpack_from("<Q", content, 40)[0]
    content += b"strings at the end\0"
    first = shoff + 64
    content[first + 24 : first + 40] = struct.pack("<QQ", len(content) - 19, 19)
    found = scan(b"text " + bytes(content) + b"\0more text")
    assert found.images[0].size == len(content)


def test_tiny_sections_do_not_hide_a_magic() -> None:
    content = cubin(90)
    pieces = [Sec(f".d{i}", content[i : i + 2], align=1) for i in range(0, len(content), 2)]
    found = scan(ElfFile(sections=pieces).build())
    assert rules_of(found) == ["KG-DEV-003"]
    assert found.images[0].kernels[0].name == "scale"


def test_code_across_the_edge_of_a_window_is_found() -> None:
    for before in (256 * 1024 - 1, 256 * 1024 - 3, 256 * 1024):
        found = scan(b"x" * before + cubin(90))
        assert [image.offset for image in found.images] == [before]


@pytest.mark.parametrize(
    "content",
    [
        b"\x50\xed\x55\xba" + bytes(100),
        b"\x50\xed\x55\xba\x01\0\x10\0" + b"\x48" * 200,
        b"CCOB" + b"\xff" * 100,
        b"CCOB",
        b"__CLANG_OFFLOAD_BUNDLE__sycl-spir64\0.tgtimg\0",
        b"__CLANG_OFFLOAD_BUNDLE__" + bytes(100),
        ElfFile(sections=[Sec(".text", b"host code")]).build(),
        b"\x7fELF\x02\x01\x01",
        b"\x7fELFu0H\x89" + bytes(10) + struct.pack("<H", 190) + bytes(60),
        b".version 8.0 of the manual\0",
        b".version",
        b"\x03\x02\x23\x07\x00\x00\x01\x00" + bytes(100),
        b"\x03\x02\x23\x07\x00",
        b"MTLB" + bytes(100),
        b"MTLB" + bytes(12) + struct.pack("<Q", 4096) + bytes(100),
    ],
)
def test_coincidences_are_not_reported(content: bytes) -> None:
    data = ElfFile(sections=[Sec(".rodata", b"x" + content + b"y" * 64)]).build()
    assert scan(data).findings == ()


@pytest.mark.parametrize("magic", [b"\x50\xed\x55\xba", b"\x7fELF\x02\x01\x01", b"MTLB"])
def test_a_magic_at_the_very_end_is_a_coincidence(magic: bytes) -> None:
    assert scan(b"text " + magic).findings == ()
    assert scan(b"text " + b"\x03\x02\x23\x07\x00").findings == ()


def test_code_inside_code_that_was_found_is_not_reported_again() -> None:
    found = scan(b"text " + fatbin(entry(cubin(90))))
    assert rules_of(found) == ["KG-DEV-003"]


def test_containers_in_hidden_places_are_limited() -> None:
    found = scan(b"text " + cubin(90), DeviceLimits(containers=0))
    assert "KG-DEV-010" in rules_of(found)
    assert found.images == ()


def test_a_file_without_device_code_has_an_empty_scan() -> None:
    found = scan(b"import torch\n" * 100)
    assert (found.images, found.findings, found.complete) == ((), (), True)
    assert scan(b"").images == ()


def test_a_mapped_file_gives_the_same_scan_as_its_bytes(tmp_path: Path) -> None:
    data = host(*(fatbin(entry(cubin(90) + bytes(100_000))) for _ in range(8)))
    path = tmp_path / "lib.so"
    path.write_bytes(data)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        with memoryview(mapped) as view:
            found = scan_device(view, "lib.so")
        assert bytes(mapped) == data
    assert found == scan(data)
