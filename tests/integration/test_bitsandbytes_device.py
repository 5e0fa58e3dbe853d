"""The device code of a real wheel, against what vendors' tools found in it.

The wheel covers CUDA 11.8 to 13.2, ROCm 6.4 to 7.15 and SYCL: every header size but two, LZ4 and
zstd, relocatable device code, compressed bundles of versions 2 and 3, ahead-of-time archives.
"""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING, NamedTuple

import pytest

from kgate_core.digest import Digest
from kgate_scanner.device import DeviceScan, ImageKind, scan_device
from kgate_scanner.elf import Elf
from tests.wheels import member, wheel

if TYPE_CHECKING:
    from pathlib import Path

WHEEL = "bitsandbytes==0.50.2"


class Expected(NamedTuple):
    """One row of ground truth, found with vendors' tools and checked by hand."""

    file: str
    digest: str
    images: int
    containers: int | None
    """None: not counted independently."""
    targets: str
    container_format: str
    compressions: str


ROWS = (
    Expected(
        "libbitsandbytes_cuda118.so",
        "9c15c4993aebff7af121116f4a60c24693465ebc00750d4e8ad5ee611198ee7f",
        55,
        None,
        "compute_90 sm_60 sm_70 sm_75 sm_80 sm_86 sm_89 sm_90",
        "fatbin",
        "lz4/none",
    ),
    Expected(
        "libbitsandbytes_cuda121.so",
        "7b05eb392fe0ccc4f7a09d98718e9329e46ead393738e14cfbf7af283ed54ee6",
        55,
        None,
        "compute_90 sm_60 sm_70 sm_75 sm_80 sm_86 sm_89 sm_90",
        "fatbin",
        "lz4/none",
    ),
    Expected(
        "libbitsandbytes_cuda124.so",
        "b40b079fb2727be268b77ff9c8e79b976f240688ac0089f2f2aa1bc1d67ed86c",
        55,
        None,
        "compute_90 sm_60 sm_70 sm_75 sm_80 sm_86 sm_89 sm_90",
        "fatbin",
        "lz4/none",
    ),
    Expected(
        "libbitsandbytes_cuda126.so",
        "06591d798fae702dd4ec814824dfddb402f1f099cdf1ad0dafa767f48b35dcec",
        55,
        None,
        "compute_90 sm_60 sm_70 sm_75 sm_80 sm_86 sm_89 sm_90",
        "fatbin",
        "lz4/none",
    ),
    Expected(
        "libbitsandbytes_cuda128.so",
        "d6dd06a7bf8b2ecc43dd7d7dc5b558dc70884fd193252a8597ee065a9c8b0f4e",
        62,
        None,
        "compute_120 sm_100 sm_120 sm_70 sm_75 sm_80 sm_86 sm_89 sm_90",
        "fatbin",
        "lz4/none",
    ),
    Expected(
        "libbitsandbytes_cuda130.so",
        "00901675cb2acb8b1d6015cfe2c2571050bf59c7ce1972e6b6717ffc99b2a285",
        55,
        None,
        "compute_120 sm_100 sm_120 sm_75 sm_80 sm_86 sm_89 sm_90",
        "fatbin",
        "zstd",
    ),
    Expected(
        "libbitsandbytes_cuda132.so",
        "92305e26350bf3f8e1d14150ce581018d1e4a5ba17c55cf73423fbed31158691",
        55,
        None,
        "compute_120 sm_100 sm_120 sm_75 sm_80 sm_86 sm_89 sm_90",
        "fatbin",
        "zstd",
    ),
    Expected(
        "libbitsandbytes_rocm64.so",
        "e511b5c561b6069d465af5087ee8fa33d1501e4fc7fdad1a7dbcc5f4b04849f7",
        28,
        2,
        "gfx1030 gfx1100 gfx1101 gfx1102 gfx1103 gfx1150 gfx1151 gfx1152 gfx1153 gfx1200 "
        "gfx1201 gfx908 gfx90a gfx942",
        "ccob-v2",
        "zstd",
    ),
    Expected(
        "libbitsandbytes_rocm70.so",
        "a030a185f801d6f221cf0a8c74b5e3203578c09572e9582a1bb0ed90920efafd",
        30,
        2,
        "gfx1030 gfx1100 gfx1101 gfx1102 gfx1103 gfx1150 gfx1151 gfx1152 gfx1153 gfx1200 "
        "gfx1201 gfx908 gfx90a gfx942 gfx950",
        "ccob-v2",
        "zstd",
    ),
    Expected(
        "libbitsandbytes_rocm71.so",
        "ad248eaf636314c357e8bc909fef4f239179a3ee270299459b0f60d5fafc5ac9",
        30,
        2,
        "gfx1030 gfx1100 gfx1101 gfx1102 gfx1103 gfx1150 gfx1151 gfx1152 gfx1153 gfx1200 "
        "gfx1201 gfx908 gfx90a gfx942 gfx950",
        "ccob-v3",
        "zstd",
    ),
    Expected(
        "libbitsandbytes_rocm714.so",
        "46a9cbfae758b2806711792f7157bb60e671dbc3759744c6dbff1c1ef0e7360f",
        50,
        2,
        "gfx1010 gfx1011 gfx1012 gfx1030 gfx1031 gfx1032 gfx1033 gfx1034 gfx1035 gfx1036 "
        "gfx1100 gfx1101 gfx1102 gfx1103 gfx1150 gfx1151 gfx1152 gfx1153 gfx1200 gfx1201 "
        "gfx1250 gfx908 gfx90a gfx942 gfx950",
        "ccob-v3",
        "zstd",
    ),
    Expected(
        "libbitsandbytes_rocm715.so",
        "df79cb8fd5a19f27ba17d65b0923a4c05dab7afdc19541d00c637e4d524ba6d7",
        50,
        2,
        "gfx1010 gfx1011 gfx1012 gfx1030 gfx1031 gfx1032 gfx1033 gfx1034 gfx1035 gfx1036 "
        "gfx1100 gfx1101 gfx1102 gfx1103 gfx1150 gfx1151 gfx1152 gfx1153 gfx1200 gfx1201 "
        "gfx1250 gfx908 gfx90a gfx942 gfx950",
        "ccob-v3",
        "zstd",
    ),
    Expected(
        "libbitsandbytes_rocm72.so",
        "738eb632e25f6231570807f326edffa6711e20df8d960ea78c9ce2e9a2e45d39",
        30,
        2,
        "gfx1030 gfx1100 gfx1101 gfx1102 gfx1103 gfx1150 gfx1151 gfx1152 gfx1153 gfx1200 "
        "gfx1201 gfx908 gfx90a gfx942 gfx950",
        "ccob-v3",
        "zstd",
    ),
)
SYCL = (
    (
        "libbitsandbytes_xpu2025.so",
        "8d92324d5bf4cd682ae1dc48d462a54cf1f046866bff162f99ef7493d8f44a4b",
    ),
    (
        "libbitsandbytes_xpu2026.so",
        "99f9d4adf046d9530b3483a0bbfd07eadd2a198760f839cb9c6f7913099e5838",
    ),
)


@pytest.fixture(scope="session")
def archive() -> Path:
    return wheel(WHEEL)


def _scan(path: Path) -> DeviceScan:
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
        memoryview(mapped) as view,
    ):
        return scan_device(view, path.name)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.file)
def test_every_image_of_the_library_is_listed(row: Expected, archive: Path, tmp_path: Path) -> None:
    found = _scan(member(archive, f"bitsandbytes/{row.file}", row.digest, tmp_path))
    assert found.findings == ()
    assert found.complete
    assert found.unexplained_bytes == 0
    assert len(found.images) == row.images
    assert " ".join(found.targets) == row.targets
    assert {image.container_format for image in found.images} == {row.container_format}
    assert "/".join(sorted({str(i.compression) for i in found.images})) == row.compressions
    assert found.containers == (row.containers or 7)
    assert all(image.digest for image in found.images)


def test_kernels_agree_with_the_vendors_tool(archive: Path, tmp_path: Path) -> None:
    """What cuobjdump 13.5 says (-all -res-usage): 2828 kernels, two of them in full."""
    row = next(row for row in ROWS if row.file.endswith("cuda132.so"))
    found = _scan(member(archive, f"bitsandbytes/{row.file}", row.digest, tmp_path))
    cubins = [image for image in found.images if image.kind is ImageKind.CUBIN]
    assert sum(len(image.kernels) for image in cubins) == 2828
    assert {image.toolkit for image in cubins} == {"13.2"}
    usage = {
        (image.target, kernel.name): (
            kernel.registers,
            kernel.stack,
            kernel.shared,
            kernel.constant,
        )
        for image in cubins
        for kernel in image.kernels
    }
    dequantize = "_Z20kDequantizeBlockwiseIfLi512ELi64ELi8ELi2EEvPfPhS0_PT_ii"
    assert usage["sm_75", dequantize] == (64, 0, 4768, 392)
    optimizer = "_Z35kOptimizerStatic8bit1StateBlockwiseIfLi4ELi256ELi1EEvPT_S1_PhfffifPfS3_ffbi"
    assert usage["sm_75", optimizer] == (42, 0, 3144, 432)


@pytest.mark.parametrize(("name", "digest"), SYCL)
def test_sycl_kernels_are_those_that_the_library_registers(
    name: str, digest: str, archive: Path, tmp_path: Path
) -> None:
    path = member(archive, f"bitsandbytes/{name}", digest, tmp_path)
    found = _scan(path)
    assert found.findings == ()
    assert found.unexplained_bytes == 0
    assert {str(image.compression) for image in found.images} == {"zstd"}
    assert found.targets[-2:] == ("spir64", "spir64_gen")
    data = memoryview(path.read_bytes())
    elf = Elf(data)
    registered = bytes(elf.content(elf.named(".tgtsym")[0])).split(b"\0")
    # Each kernel is registered under the name of its type; functions that others may call follow.
    names = {text.partition(b".")[2].decode() for text in registered if b"._ZTS" in text}
    listed = {kernel.name for image in found.images for kernel in image.kernels}
    assert listed == names


def test_a_real_container_cut_anywhere_is_read_without_raising(
    archive: Path, tmp_path: Path
) -> None:
    row = next(row for row in ROWS if row.file.endswith("cuda130.so"))
    data = member(archive, f"bitsandbytes/{row.file}", row.digest, tmp_path).read_bytes()
    start = data.index(b"\x50\xed\x55\xba")
    size = 16 + int.from_bytes(data[start + 8 : start + 16], "little")
    whole = scan_device(memoryview(data[start : start + size]), "x.fatbin")
    assert (len(whole.images), whole.findings) == (8, ())
    for end in range(0, size, 7):
        found = scan_device(memoryview(data[start : start + end]), "x.fatbin")
        assert len(found.images) <= len(whole.images)
        same = whole.images[: len(found.images)]
        assert not found.complete or found.images == same


def test_bundle_images_match_the_checksum_of_their_compiler(archive: Path, tmp_path: Path) -> None:
    """The bundle's own checksum covers all its images: no finding means that it matched."""
    row = next(row for row in ROWS if row.file.endswith("rocm71.so"))
    path = member(archive, f"bitsandbytes/{row.file}", row.digest, tmp_path)
    assert _scan(path).findings == ()
    data = bytearray(path.read_bytes())
    at = data.index(b"CCOB") + 24
    data[at] ^= 1
    found = scan_device(memoryview(bytes(data)), path.name)
    assert [finding.rule for finding in found.findings] == ["KG-DEV-014"]
    assert Digest.of(data) != Digest(row.digest)
