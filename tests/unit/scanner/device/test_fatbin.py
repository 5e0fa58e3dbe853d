"""CUDA fatbins: every header size and compression, wrappers, damage."""

from __future__ import annotations

import struct

import pytest

from kgate_core.digest import Digest
from kgate_scanner.device import Compression, ImageKind
from tests.unit.scanner.device.builders import (
    AARCH64,
    ET_REL,
    Kernel,
    cubin,
    entry,
    fatbin,
    host,
    ptx,
)
from tests.unit.scanner.device.scanning import rules_of, said, scan


@pytest.mark.parametrize("header_size", [64, 72, 80, 96, 104, 112, 120, 144])
@pytest.mark.parametrize("compression", ["none", "lz4", "zstd"])
def test_images_are_found_whatever_the_header_size_and_compression(
    header_size: int, compression: str
) -> None:
    image = cubin(90)
    first = entry(image, compression=compression, header_size=header_size)
    second = entry(ptx(), kind=1, compression=compression, header_size=header_size)
    found = scan(host(fatbin(first, second)))
    assert found.findings == ()
    assert found.complete
    assert [(i.kind, i.target, i.container, i.entry) for i in found.images] == [
        (ImageKind.CUBIN, "sm_90", 0, 0),
        (ImageKind.PTX, "compute_90", 0, 1),
    ]
    assert found.images[0].digest == Digest.of(image)
    assert found.images[0].compression is Compression(compression)
    assert found.images[0].size == len(image)


def test_the_offset_is_where_the_stored_bytes_lie() -> None:
    image = cubin(90)
    data = host(fatbin(entry(image)))
    (found,) = scan(data).images
    assert data[found.offset : found.offset + found.stored_size] == image
    assert found.section == ".nv_fatbin"


def test_several_containers_are_numbered_in_their_order() -> None:
    found = scan(host(fatbin(entry(cubin(80), arch=80)), fatbin(entry(cubin(90)))))
    assert found.containers == 2
    assert [(image.container, image.target) for image in found.images] == [
        (0, "sm_80"),
        (1, "sm_90"),
    ]


@pytest.mark.parametrize(
    ("flags", "target"), [(0x100011, "sm_90a"), (0x200011, "sm_90f"), (0x11, "sm_90")]
)
def test_the_suffix_of_the_architecture_comes_from_the_flags(flags: int, target: str) -> None:
    found = scan(host(fatbin(entry(cubin(90, abi=8), flags=flags))))
    assert found.targets == (target,)
    assert found.findings == ()


def test_lto_ir_is_listed_without_being_read() -> None:
    encoded = entry(b"opaque" * 20, kind=8, flags=0x18011, size=4096)
    found = scan(host(fatbin(entry(cubin(90)), encoded)))
    assert rules_of(found) == ["KG-DEV-015"]
    assert found.complete
    assert found.images[1].digest == Digest.of(b"opaque" * 20)
    assert [(image.kind, image.target) for image in found.images] == [
        (ImageKind.CUBIN, "sm_90"),
        (ImageKind.LTO_IR, "lto_90"),
    ]


def test_machine_code_is_read_even_if_it_is_marked_as_encoded() -> None:
    found = scan(host(fatbin(entry(cubin(90), flags=0x10011))))
    assert rules_of(found) == ["KG-DEV-011"]
    assert found.images[0].kernels[0].name == "scale"


def test_options_and_source_name_come_out_of_the_header() -> None:
    one = entry(ptx(), kind=1, options=b"-O1 -v ", source=b"softmax.cu\0")
    found = scan(host(fatbin(entry(cubin(90)), one)))
    assert (found.images[1].options, found.images[1].lineinfo) == ("-O1 -v", "softmax.cu")


def test_empty_options_are_no_options() -> None:
    one = bytearray(entry(cubin(90), header_size=72))
    one[0x14:0x18] = struct.pack("<I", 64)
    assert scan(host(fatbin(bytes(one)))).findings == ()


def test_binary_options_are_not_taken_for_text() -> None:
    one = entry(cubin(100, abi=8), arch=100, options=b"\0\2\2\1", flags=0x1000011)
    found = scan(host(fatbin(one)))
    assert found.images[0].options == ""
    assert found.findings == ()


def test_relocatable_code_is_marked() -> None:
    found = scan(host(fatbin(entry(cubin(90, kind=ET_REL))), section="__nv_relfatbin"))
    assert found.images[0].relocatable
    assert found.images[0].section == "__nv_relfatbin"


@pytest.mark.parametrize("machine", [62, AARCH64])
@pytest.mark.parametrize("relocated", [True, False])
def test_wrappers_are_followed_through_relocations_or_in_place(
    machine: int, *, relocated: bool
) -> None:
    containers = (fatbin(entry(cubin(80), arch=80)), fatbin(entry(cubin(90))))
    assert scan(host(*containers, machine=machine, relocated=relocated)).findings == ()


def test_a_container_without_a_wrapper_is_an_orphan() -> None:
    found = scan(host(fatbin(entry(cubin(80), arch=80)), fatbin(entry(cubin(90))), wrapped=(0,)))
    assert rules_of(found) == ["KG-DEV-002"]
    assert len(found.images) == 2


def test_a_wrapper_that_points_elsewhere_is_reported() -> None:
    data = bytearray(host(fatbin(entry(cubin(90))), relocated=False))
    at = data.index(struct.pack("<II", 0x466243B1, 1))
    pointer = struct.unpack_from("<Q", data, at + 8)[0]
    data[at + 8 : at + 16] = struct.pack("<Q", pointer + 8)
    found = scan(bytes(data))
    assert sorted(rules_of(found)) == ["KG-DEV-002", "KG-DEV-012"]
    assert "where no container starts" in said(found)


def test_a_wrapper_of_another_magic_is_reported() -> None:
    data = host(fatbin(entry(cubin(90)))).replace(struct.pack("<II", 0x466243B1, 1), b"\1" * 8)
    assert "a wrapper with magic 0x1010101" in said(scan(data))


def test_wrappers_of_relocatable_files_are_not_compared() -> None:
    found = scan(host(fatbin(entry(cubin(90))), wrapped=(), type=ET_REL))
    assert found.findings == ()


def test_bytes_between_containers_are_unexplained_unless_zero() -> None:
    one, two = fatbin(entry(cubin(80), arch=80)), fatbin(entry(cubin(90)))
    assert scan(host(one + bytes(24), two)).findings == ()
    found = scan(host(one + b"secret: hunter2!", two))
    assert rules_of(found) == ["KG-DEV-006"]
    assert found.unexplained_bytes == 16
    assert len(found.images) == 2


@pytest.mark.parametrize("where", ["header", "padding", "options"])
def test_bytes_that_an_entry_does_not_explain_are_reported(where: str) -> None:
    packed = entry(cubin(90), compression="zstd", header_size=128, options=b"-O1" + bytes(5))
    broken = bytearray(packed)
    stored = struct.unpack_from("<I", packed, 0x10)[0]
    at = {"header": 120, "padding": 128 + stored, "options": 76}[where]
    if where == "padding":
        broken[8:16] = struct.pack("<Q", stored + 16)
        broken[at:] = bytes(16)
    broken[at : at + 4] = b"hide"
    found = scan(host(fatbin(bytes(broken))))
    assert rules_of(found) == ["KG-DEV-006"]
    assert found.unexplained_bytes == 4
    assert found.images[0].kernels[0].name == "scale"


def test_a_container_that_claims_too_much_is_malformed_and_still_read() -> None:
    data = bytearray(host(fatbin(entry(cubin(90)))))
    at = data.index(b"\x50\xed\x55\xba")
    data[at + 8 : at + 16] = struct.pack("<Q", 1 << 60)
    found = scan(bytes(data))
    assert "KG-DEV-001" in rules_of(found)
    assert not found.complete
    assert [image.target for image in found.images] == ["sm_90"]


def test_an_entry_that_does_not_fit_ends_its_container_only() -> None:
    broken = bytearray(entry(cubin(80), arch=80))
    broken[8:16] = struct.pack("<Q", 1 << 40)
    found = scan(host(fatbin(bytes(broken)), fatbin(entry(cubin(90)))))
    assert rules_of(found) == ["KG-DEV-001", "KG-DEV-006"]
    assert [image.target for image in found.images] == ["sm_90"]


@pytest.mark.parametrize(
    ("at", "value", "rule", "words"),
    [
        (0, struct.pack("<H", 77), "KG-DEV-011", "kind 77"),
        (2, struct.pack("<H", 0x0202), "KG-DEV-011", "version 0x202"),
        (0x10, struct.pack("<I", 9), "KG-DEV-001", "no compression"),
        (0x14, struct.pack("<I", 4096), "KG-DEV-001", "options or source"),
        (0x24, struct.pack("<I", 4096), "KG-DEV-001", "source name"),
        (0x28, struct.pack("<Q", 0xA011), "KG-DEV-001", "as LZ4 and as zstd"),
        (0x28, struct.pack("<Q", 0x2011), "KG-DEV-001", "impossible sizes"),
        (0x28, struct.pack("<Q", 1 << 40 | 0x11), "KG-DEV-011", "flags 0x10000000000"),
    ],
)
def test_a_strange_entry_header_is_reported(at: int, value: bytes, rule: str, words: str) -> None:
    broken = bytearray(entry(cubin(80), arch=80))
    broken[at : at + len(value)] = value
    found = scan(host(fatbin(bytes(broken), entry(cubin(90)))))
    assert rule in rules_of(found)
    assert words in said(found)
    assert found.images[-1].target == "sm_90"
    assert not found.complete


def test_a_container_cut_within_its_header_is_malformed() -> None:
    found = scan(host(fatbin(entry(cubin(90))) + struct.pack("<I", 0xBA55ED50)))
    assert rules_of(found) == ["KG-DEV-001"]


def test_zero_records_between_wrappers_are_padding() -> None:
    data = host(fatbin(entry(cubin(80), arch=80)), fatbin(entry(cubin(90))), relocated=False)
    record = struct.pack("<II", 0x466243B1, 1)
    at = data.index(record)
    found = scan(data[:at] + bytes(24) + data[at + 24 :])
    assert rules_of(found) == ["KG-DEV-002"]


@pytest.mark.parametrize("version", [0, 2])
def test_a_container_of_another_version_is_unknown(version: int) -> None:
    data = host(fatbin(entry(cubin(90))))
    at = data.index(b"\x50\xed\x55\xba")
    changed = data[: at + 4] + struct.pack("<H", version) + data[at + 6 :]
    found = scan(changed)
    assert "KG-DEV-011" in rules_of(found)
    assert found.images == ()


def test_the_container_and_the_code_must_agree_about_the_architecture() -> None:
    found = scan(host(fatbin(entry(cubin(80), arch=90))))
    assert rules_of(found) == ["KG-DEV-004"]
    assert "the container says sm_90, the code says sm_80" in said(found)


def test_code_for_one_variant_may_not_be_labelled_as_general() -> None:
    assert rules_of(scan(host(fatbin(entry(cubin(90, accelerated=True)))))) == ["KG-DEV-004"]
    found = scan(host(fatbin(entry(cubin(90, accelerated=True), flags=0x100011))))
    assert found.findings == ()


def test_ptx_for_another_target_is_a_mismatch() -> None:
    found = scan(host(fatbin(entry(cubin(90)), entry(ptx("sm_90a"), kind=1))))
    assert rules_of(found) == ["KG-DEV-004"]


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_damaged_compression_is_one_finding_and_the_scan_goes_on(compression: str) -> None:
    broken = bytearray(entry(cubin(80), arch=80, compression=compression))
    broken[64 + 6 : 64 + 40] = b"\xff" * 34
    found = scan(host(fatbin(bytes(broken), entry(cubin(90)))))
    assert rules_of(found) == ["KG-DEV-005"]
    assert [(image.target, image.digest is None) for image in found.images] == [
        ("sm_80", True),
        ("sm_90", False),
    ]
    assert not found.complete


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
@pytest.mark.parametrize("change", [-8, 8, 1 << 20])
def test_a_declared_size_that_is_not_met_is_a_finding(compression: str, change: int) -> None:
    image = cubin(90)
    one = entry(image, compression=compression, size=len(image) + change)
    assert rules_of(scan(host(fatbin(one)))) == ["KG-DEV-005"]


def test_kernels_of_a_fat_binary_keep_their_resources() -> None:
    kernels = (Kernel("a", 255, 0, 0, 364, 8, (1024, 1, 1)), Kernel("b", 32, 16, 49152))
    (image,) = scan(host(fatbin(entry(cubin(90, kernels), compression="zstd")))).images
    first, second = image.kernels
    assert (first.name, first.registers, first.stack, first.shared) == ("a", 255, 0, 0)
    assert (first.constant, first.params, first.max_threads) == (364, 8, 1024)
    assert (second.name, second.shared) == ("b", 49152)
