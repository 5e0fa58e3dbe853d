"""The device code of the large wheels of the corpus, against what vendors' tools found in them.

Not run by default: the wheels have 200 to 540 MB. `make test-corpus` runs it.
"""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING, NamedTuple

import pytest

from kgate_scanner.device import scan_device
from tests.wheels import member, wheel

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.corpus


class Expected(NamedTuple):
    """One row of ground truth, found with vendors' tools and checked by hand."""

    wheel: str
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
        "sgl-kernel==0.3.21",
        "_mscclpp.cpython-310-x86_64-linux-gnu.so",
        "0c01263cac2bd515e53e9f9612474aaa67d776984f7c9260da26f5e4182ab0bf",
        4,
        None,
        "compute_80 compute_90 sm_80 sm_90",
        "fatbin",
        "lz4/none",
    ),
    Expected(
        "sgl-kernel==0.3.21",
        "lib/mscclpp.so",
        "8690aa34474bae24ac5562b7ddc268a51c48eb8c863284242ca8f1bd1d6c3b51",
        4,
        None,
        "compute_80 compute_90 sm_80 sm_90",
        "fatbin",
        "lz4/none",
    ),
    Expected(
        "sgl-kernel==0.3.21",
        "lib/mscclpp.so.0",
        "8690aa34474bae24ac5562b7ddc268a51c48eb8c863284242ca8f1bd1d6c3b51",
        4,
        None,
        "compute_80 compute_90 sm_80 sm_90",
        "fatbin",
        "lz4/none",
    ),
    Expected(
        "sgl-kernel==0.3.21",
        "lib/mscclpp.so.0.6.0",
        "8690aa34474bae24ac5562b7ddc268a51c48eb8c863284242ca8f1bd1d6c3b51",
        4,
        None,
        "compute_80 compute_90 sm_80 sm_90",
        "fatbin",
        "lz4/none",
    ),
    Expected(
        "sgl-kernel==0.3.21",
        "lib/mscclpp_nccl.so",
        "a94a10ea3543552bcd47b326da71fe4115f0d5a88f349fe868aa65191b0ebb51",
        8,
        None,
        "compute_80 compute_90 sm_80 sm_90",
        "fatbin",
        "lz4/none",
    ),
    Expected(
        "sgl-kernel==0.3.21",
        "lib/mscclpp_nccl.so.0",
        "a94a10ea3543552bcd47b326da71fe4115f0d5a88f349fe868aa65191b0ebb51",
        8,
        None,
        "compute_80 compute_90 sm_80 sm_90",
        "fatbin",
        "lz4/none",
    ),
    Expected(
        "sgl-kernel==0.3.21",
        "lib/mscclpp_nccl.so.0.6.0",
        "a94a10ea3543552bcd47b326da71fe4115f0d5a88f349fe868aa65191b0ebb51",
        8,
        None,
        "compute_80 compute_90 sm_80 sm_90",
        "fatbin",
        "lz4/none",
    ),
    Expected(
        "sgl-kernel==0.3.21",
        "sgl_kernel/flashmla_ops.abi3.so",
        "927a26075b4dda36aaa1bdeabd29b71ae13d6b871cb5d094714126b102ee09eb",
        22,
        None,
        "sm_100a sm_90a",
        "fatbin",
        "none",
    ),
    Expected(
        "sgl-kernel==0.3.21",
        "sgl_kernel/spatial_ops.abi3.so",
        "5acce66b49bb55c2494bca314dc6be5bb4234d88b908f327c8d1f66fd480e129",
        6,
        None,
        "sm_100a sm_120a sm_80 sm_89 sm_90 sm_90a",
        "fatbin",
        "none",
    ),
    Expected(
        "cupy-cuda12x==14.2.0",
        "cupy/random/_generator_api.cpython-311-x86_64-linux-gnu.so",
        "bda4d93c74449201a209a07aa3a92ae3ce71bbba0e138c6c3118153da9aa2809",
        13,
        None,
        "compute_100 sm_100f sm_120f sm_50 sm_52 sm_60 sm_61 sm_70 sm_75 sm_80 sm_86 sm_89 sm_90",
        "fatbin",
        "lz4",
    ),
    Expected(
        "cupy-rocm-7-0==14.2.0",
        "cupy/random/_generator_api.cpython-311-x86_64-linux-gnu.so",
        "51699f14d9ca4c34e95d553a76a60b87500a669c77e6223f59d0957f8b8a4371",
        9,
        1,
        "gfx1030 gfx1100 gfx1101 gfx1200 gfx1201 gfx908 gfx90a gfx942 gfx950",
        "bundle",
        "none",
    ),
    Expected(
        "sgl-kernel==0.3.21",
        "sgl_kernel/flash_ops.abi3.so",
        "a7f6378be503adb35715c667cf6b81f49d10b21f92b5c555421814b9aa6a7865",
        546,
        None,
        "sm_80 sm_86 sm_90a",
        "fatbin",
        "none",
    ),
    Expected(
        "sgl-kernel==0.3.21",
        "sgl_kernel/sm90/common_ops.abi3.so",
        "798e7e291de40e08345d419b7bd0866068648b87d1c9a6690a07c0a00aae44ae",
        444,
        None,
        "sm_100a sm_120a sm_80 sm_89 sm_90 sm_90a",
        "fatbin",
        "lz4/none",
    ),
)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.file.rpartition("/")[2])
def test_every_image_of_the_library_is_listed(row: Expected, tmp_path: Path) -> None:
    path = member(wheel(row.wheel), row.file, row.digest, tmp_path)
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
        memoryview(mapped) as view,
    ):
        found = scan_device(view, path.name)
    path.unlink()
    assert found.findings == ()
    assert found.complete
    assert found.unexplained_bytes == 0
    assert len(found.images) == row.images
    assert " ".join(found.targets) == row.targets
    assert {image.container_format for image in found.images} == {row.container_format}
    assert "/".join(sorted({str(i.compression) for i in found.images})) == row.compressions
    assert found.containers == (row.containers or found.containers)
