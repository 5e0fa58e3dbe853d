"""SYCL images: SPIR-V, ahead-of-time archives, with and without the table of images."""

from __future__ import annotations

import struct

import pytest

from kgate_core.digest import Digest
from kgate_scanner.device import Compression, DeviceLimits, ImageKind
from kgate_scanner.device.spirv import read_spirv
from kgate_scanner.device.sycl import read_intermediate
from tests.unit.scanner.device.builders import BASE, ElfFile, Sec, archive, spirv, sycl_host, zebin
from tests.unit.scanner.device.scanning import rules_of, said, scan

AHEAD = archive(
    ("pad_0", bytes(8)), ("64.12.60.7", zebin("scale", "add")), ("generic_ir", spirv("scale"))
)


@pytest.mark.parametrize("listed", [True, False])
def test_compressed_spirv_modules_are_listed_with_their_entry_points(*, listed: bool) -> None:
    modules = (spirv("scale"), spirv("add", "sub"))
    found = scan(sycl_host("spir64", *modules, listed=listed))
    assert rules_of(found) == ["KG-DEV-009"]
    assert [(i.kind, i.target, i.compression) for i in found.images] == [
        (ImageKind.SPIRV, "spir64", Compression.ZSTD)
    ] * 2
    assert [[k.name for k in i.kernels] for i in found.images] == [["scale"], ["add", "sub"]]
    assert found.images[0].digest == Digest.of(modules[0])


def test_uncompressed_modules_are_found_by_the_table() -> None:
    found = scan(sycl_host("spir64", spirv("scale"), packed=False))
    assert [(i.kind, i.compression) for i in found.images] == [(ImageKind.SPIRV, Compression.NONE)]


def test_an_archive_is_listed_with_its_members() -> None:
    found = scan(sycl_host("spir64_gen", AHEAD))
    assert found.findings == ()
    assert [(image.kind, image.target, image.container) for image in found.images] == [
        (ImageKind.DEVICE_ARCHIVE, "spir64_gen", 0),
        (ImageKind.ZEBIN, "64.12.60.7", 1),
        (ImageKind.SPIRV, "generic_ir", 1),
    ]
    assert [kernel.name for kernel in found.images[1].kernels] == ["scale", "add"]
    assert found.images[1].is_machine_code


def test_a_damaged_archive_member_is_malformed() -> None:
    found = scan(sycl_host("spir64_gen", AHEAD.replace(b"64.12.60.7/     0", b"64.12.60.7/     x")))
    assert found.findings == ()
    broken = AHEAD.replace(b"`\n", b"``", 2)
    assert "damaged member" in said(scan(sycl_host("spir64_gen", broken)))


@pytest.mark.parametrize("content", [b"", b"text"])
def test_an_elf_without_a_module_is_damage(content: bytes) -> None:
    wrapped = ElfFile(type=0xFF02, machine=0, sections=[Sec(".spv", content)]).build()
    assert read_intermediate(memoryview(wrapped)).damage == ("no SPIR-V module inside",)


def test_a_module_inside_an_elf_is_read() -> None:
    wrapped = ElfFile(type=0xFF02, machine=0, sections=[Sec(".spv", spirv("scale"))]).build()
    found = scan(sycl_host("spir64_gen", archive(("generic_ir", wrapped))))
    assert (found.images[1].kind, found.images[1].kernels[0].name) == (ImageKind.SPIRV, "scale")


def test_an_image_of_an_unknown_kind_is_unknown() -> None:
    found = scan(sycl_host("native_cpu", b"something else"))
    assert rules_of(found) == ["KG-DEV-011"]
    assert found.images[0].kind is ImageKind.UNKNOWN


def test_an_uncompressed_image_that_leaves_its_section_is_malformed() -> None:
    module = spirv("scale")
    data = sycl_host("spir64", module, packed=False)
    pair = struct.pack("<QQ", BASE + data.index(module), len(module))
    found = scan(data.replace(pair, pair[:8] + struct.pack("<Q", 1 << 40)))
    assert "KG-DEV-001" in rules_of(found)


def test_a_damaged_frame_does_not_hide_the_next_one() -> None:
    data = sycl_host("spir64", spirv("scale"), spirv("add"), listed=False)
    at = data.index(b"\x28\xb5\x2f\xfd")
    found = scan(data[: at + 6] + b"\xf4\xff\xff" + data[at + 9 :])
    assert [image.kernels[0].name for image in found.images] == ["add"]


def test_containers_are_limited() -> None:
    data = sycl_host("spir64_gen", AHEAD)
    assert "KG-DEV-010" in rules_of(scan(data, DeviceLimits(containers=0)))
    found = scan(data, DeviceLimits(containers=1))
    assert "KG-DEV-010" in rules_of(found)
    assert len(found.images) == 1


def test_a_module_without_functions_has_its_entry_points() -> None:
    code = read_spirv(memoryview(spirv("k")[:-24]))
    assert ([kernel.name for kernel in code.kernels], code.damage) == (["k"], ())


def test_a_large_member_is_no_padding_whatever_its_name() -> None:
    found = scan(sycl_host("spir64_gen", archive(("pad_0", zebin("scale")))))
    assert [image.target for image in found.images] == ["spir64_gen", "pad_0"]


def test_bytes_behind_the_last_member_are_unexplained() -> None:
    found = scan(sycl_host("spir64_gen", AHEAD + b"hide"))
    assert rules_of(found) == ["KG-DEV-006"]


def test_a_frame_with_damaged_contents_is_one_finding() -> None:
    data = bytearray(sycl_host("spir64", spirv(*"abcdefghijklmnop"), spirv("scale")))
    second = data.rindex(b"\x28\xb5\x2f\xfd")
    end = len(data[:second].rstrip(b"\0"))
    data[end - 8 : end] = b"\xff" * 8
    found = scan(bytes(data))
    assert "KG-DEV-005" in rules_of(found)
    assert [k.name for k in found.images[-1].kernels] == ["scale"]


def test_a_frame_whose_headers_leave_the_section_is_malformed() -> None:
    data = sycl_host("spir64", spirv("scale"))
    at = data.index(b"\x28\xb5\x2f\xfd")
    found = scan(data[: at + 6] + b"\xf4\xff\xff" + data[at + 9 :])
    assert "KG-DEV-001" in rules_of(found)


def test_the_table_must_point_into_the_file() -> None:
    data = bytearray(sycl_host("spir64", spirv("scale")))
    at = data.index(b"\x28\xb5\x2f\xfd")
    entry = data.index(struct.pack("<Q", 0x10000 + at))
    data[entry : entry + 8] = struct.pack("<Q", 1 << 40)
    found = scan(bytes(data))
    assert "KG-DEV-012" in rules_of(found)
    assert found.unexplained_bytes > 0


def test_a_listed_size_that_is_not_met_is_a_finding() -> None:
    module = spirv("scale")
    data = sycl_host("spir64", module)
    pair = data.rindex(struct.pack("<Q", len(module)))
    found = scan(data[:pair] + struct.pack("<Q", len(module) + 4) + data[pair + 8 :])
    assert "KG-DEV-005" in rules_of(found)


def test_images_that_share_bytes_are_malformed() -> None:
    data = sycl_host("spir64", spirv("scale"), spirv("add"))
    starts = [i for i in range(len(data)) if data.startswith(b"\x28\xb5\x2f\xfd", i)]
    second = struct.pack("<Q", 0x10000 + starts[1])
    changed = data.replace(second, struct.pack("<Q", 0x10000 + starts[0] + 1))
    assert "KG-DEV-001" in rules_of(scan(changed))


@pytest.mark.parametrize(
    ("data", "said_of_it"),
    [
        (b"\x03\x02\x23\x07", "impossible size"),
        (bytes(20), "magic is missing"),
        (spirv("k")[:20] + bytes(4), "instruction of 0 bytes"),
        (spirv("k")[:20] + struct.pack("<I", 99 << 16 | 17), "instruction of 396 bytes"),
    ],
)
def test_a_damaged_module_is_said(data: bytes, said_of_it: str) -> None:
    assert said_of_it in "; ".join(read_spirv(memoryview(data)).damage)
