"""Offload bundles: plain and compressed in all versions, checksums, damage."""

from __future__ import annotations

import struct

import pytest

from kgate_core.digest import Digest
from kgate_scanner.device import Compression, DeviceLimits, ImageKind
from tests.unit.scanner.device.builders import bundle, ccob, hip_bundle, host, hsaco
from tests.unit.scanner.device.scanning import rules_of, said, scan

MI200, MI300 = hsaco(), hsaco(0x4C, target="gfx942")
TWO = hip_bundle(("gfx90a", MI200), ("gfx942", MI300))


def test_a_plain_bundle_lists_its_images_with_their_offsets() -> None:
    data = host(TWO, section=".hip_fatbin")
    found = scan(data)
    assert found.findings == ()
    assert [(i.kind, i.target, i.container_format) for i in found.images] == [
        (ImageKind.HSACO, "gfx90a", "bundle"),
        (ImageKind.HSACO, "gfx942", "bundle"),
    ]
    for image, content in zip(found.images, (MI200, MI300), strict=True):
        assert data[image.offset : image.offset + image.stored_size] == content
        assert image.digest == Digest.of(content)


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("method", ["zstd", "zlib"])
def test_a_compressed_bundle_lists_the_same_images(version: int, method: str) -> None:
    packed = ccob(TWO, version=version, method=method)
    found = scan(host(packed, packed, section=".hip_fatbin"))
    assert found.findings == ()
    assert found.containers == 2
    assert [image.target for image in found.images] == ["gfx90a", "gfx942"] * 2
    first = found.images[0]
    assert first.digest == Digest.of(MI200)
    assert (first.container_format, first.compression) == (f"ccob-v{version}", Compression(method))
    assert (first.size, first.entry) == (len(MI200), 1)


def test_a_wrong_checksum_is_a_finding_and_the_images_are_listed() -> None:
    found = scan(host(ccob(TWO, damage=1), section=".hip_fatbin"))
    assert rules_of(found) == ["KG-DEV-014"]
    assert len(found.images) == 2


def test_bundles_without_a_wrapper_are_orphans() -> None:
    found = scan(host(TWO, TWO, section=".hip_fatbin", wrapped=(1,)))
    assert rules_of(found) == ["KG-DEV-002"]


def test_the_bundle_and_the_code_must_agree_about_the_target() -> None:
    found = scan(host(hip_bundle(("gfx1100", MI200)), section=".hip_fatbin"))
    assert rules_of(found) == ["KG-DEV-004"]
    assert "the container says gfx1100, the code says gfx90a" in said(found)


def test_features_are_part_of_the_target() -> None:
    image = hsaco(features=0x700, target="gfx90a:xnack+")
    assert scan(host(hip_bundle(("gfx90a:xnack+", image)), section=".hip_fatbin")).findings == ()
    found = scan(host(hip_bundle(("gfx90a:xnack-", image)), section=".hip_fatbin"))
    assert rules_of(found) == ["KG-DEV-004"]


def test_an_entry_for_an_unknown_target_is_unknown() -> None:
    found = scan(host(bundle(("openmp-riscv64-unknown", b"code")), section=".hip_fatbin"))
    assert set(rules_of(found)) == {"KG-DEV-011"}
    assert found.images[0].kind is ImageKind.UNKNOWN


@pytest.mark.parametrize(
    ("at", "value", "words"),
    [
        (24, 1 << 40, "claims 1099511627776 entries"),
        (32 + 16, 1 << 20, "id of 1048576 bytes"),
        (32 + 8, 1 << 40, "bundle entry ends at"),
    ],
)
def test_a_damaged_table_is_malformed(at: int, value: int, words: str) -> None:
    broken = bytearray(TWO)
    broken[at : at + 8] = struct.pack("<Q", value)
    found = scan(host(bytes(broken), section=".hip_fatbin"))
    assert "KG-DEV-001" in rules_of(found)
    assert words in said(found)


def test_members_that_share_bytes_are_refused() -> None:
    table = bundle(("hipv4-amdgcn-amd-amdhsa--gfx90a", MI200), ("x-y", MI200))
    offset = struct.unpack_from("<Q", table, 32)[0]
    second = table.index(b"x-y") - 24
    broken = table[:second] + struct.pack("<Q", offset) + table[second + 8 :]
    assert "shares bytes" in said(scan(host(broken, section=".hip_fatbin")))


@pytest.mark.parametrize(("field", "value"), [(4, 9), (6, 7)])
def test_an_unknown_version_or_method_is_malformed(field: int, value: int) -> None:
    packed = bytearray(ccob(TWO))
    packed[field : field + 2] = struct.pack("<H", value)
    found = scan(host(bytes(packed), section=".hip_fatbin"))
    assert "KG-DEV-001" in rules_of(found)
    assert found.images == ()


@pytest.mark.parametrize("size", [0, 5, 1 << 50])
def test_a_total_size_that_does_not_fit_is_malformed(size: int) -> None:
    packed = bytearray(ccob(TWO))
    packed[8:16] = struct.pack("<Q", size)
    assert "claims" in said(scan(host(bytes(packed), section=".hip_fatbin")))


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("method", ["zstd", "zlib"])
def test_damaged_contents_are_one_finding(version: int, method: str) -> None:
    packed = bytearray(ccob(TWO, version=version, method=method))
    packed[60:80] = b"\xff" * 20
    found = scan(host(bytes(packed), hip_bundle(("gfx942", MI300)), section=".hip_fatbin"))
    assert {"KG-DEV-005", "KG-DEV-001"} & set(rules_of(found))
    assert "gfx942" in found.targets
    assert not found.complete


def test_contents_that_are_no_bundle_are_malformed() -> None:
    assert rules_of(scan(host(ccob(b"something else"), section=".hip_fatbin"))) == ["KG-DEV-001"]


def test_bytes_behind_the_last_member_are_unexplained() -> None:
    found = scan(host(ccob(TWO + b"hidden"), section=".hip_fatbin"))
    assert rules_of(found) == ["KG-DEV-006"]
    assert found.unexplained_bytes == 6


@pytest.mark.parametrize(
    "data",
    [TWO[:28], TWO[:60], b"CCOB\3", ccob(TWO)[:20], hip_bundle()[:24] + b"\2" + bytes(7)],
)
def test_a_bundle_cut_within_its_headers_is_malformed(data: bytes) -> None:
    found = scan(data)
    assert "KG-DEV-001" in rules_of(found)
    assert not found.complete


def test_the_search_for_bundles_gives_up_after_many_damaged_ones() -> None:
    found = scan(host(b"CCOB" * 50, section=".hip_fatbin"), DeviceLimits(retries=10))
    assert "more than 10 damaged containers" in said(found)
    assert "KG-DEV-010" in rules_of(scan(TWO, DeviceLimits(containers=0)))


def test_bytes_between_the_members_are_unexplained() -> None:
    at = TWO.index(MI200) - 8
    found = scan(host(TWO[:at] + b"hide" + TWO[at + 4 :], section=".hip_fatbin"))
    assert rules_of(found) == ["KG-DEV-006"]
    assert (found.unexplained_bytes, len(found.images)) == (4, 2)


@pytest.mark.parametrize("method", ["zstd", "zlib"])
def test_bytes_behind_the_compressed_contents_are_refused(method: str) -> None:
    packed = ccob(TWO, method=method) + b"hide"
    longer = packed[:8] + struct.pack("<Q", len(packed)) + packed[16:]
    found = scan(host(longer, section=".hip_fatbin"))
    assert rules_of(found) == ["KG-DEV-005"]
    assert "4 more bytes follow" in said(found)


def test_a_zlib_stream_without_an_end_is_refused() -> None:
    packed = ccob(TWO, method="zlib")
    shorter = packed[:8] + struct.pack("<Q", len(packed) - 4) + packed[16:-4]
    assert "has no end" in said(scan(host(shorter, section=".hip_fatbin")))


def test_the_image_of_a_host_is_not_listed_when_empty() -> None:
    assert [image.entry for image in scan(host(TWO, section=".hip_fatbin")).images] == [1, 2]
