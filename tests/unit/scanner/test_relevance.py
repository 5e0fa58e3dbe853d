"""Code for GPUs that nobody owns, and what an SBOM leaves out."""

from __future__ import annotations

import hashlib
import json

import pytest

from kgate_core.errors import InvalidInput
from kgate_scanner.relevance import check_gpu, foreign_share, read_listed, runs_on, unlisted
from tests.scankit import build_library, scan_bytes
from tests.unit.scanner.device.builders import Kernel, cubin, entry, fatbin, host

KERNELS = (Kernel("a"),)


@pytest.mark.parametrize(
    ("target", "gpu", "runs"),
    [
        ("sm_90", "sm_90", True),
        ("sm_80", "sm_86", True),
        ("sm_86", "sm_80", False),
        ("sm_80", "sm_90", False),
        ("sm_90a", "sm_90", True),
        ("sm_100a", "sm_103", False),
        ("sm_100f", "sm_103", True),
        ("sm_100f", "sm_120", False),
        ("compute_80", "sm_120", True),
        ("compute_90", "sm_80", False),
        ("compute_90a", "sm_100", False),
        ("sm_90", "gfx942", False),
        ("gfx942", "gfx942", True),
        ("gfx90a:xnack+", "gfx90a", True),
        ("gfx1100", "gfx1101", False),
        ("spir64", "sm_90", True),
    ],
)
def test_which_code_runs_on_which_gpu(target: str, gpu: str, runs: bool) -> None:  # noqa: FBT001
    assert runs_on(target, gpu) is runs


@pytest.mark.parametrize("name", ["H100", "compute_90", "sm90", "gfx", ""])
def test_what_names_no_gpu_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="not a GPU architecture"):
        check_gpu(name)


def test_the_share_counts_decompressed_bytes_that_no_owned_gpu_runs() -> None:
    for_90, for_80 = cubin(90, KERNELS), cubin(80, KERNELS)
    report = scan_bytes(
        {"lib.so": host(fatbin(entry(for_90, compression="lz4"), entry(for_80, arch=80)))}
    )
    share = foreign_share([report], ["sm_90"])
    assert share.total == len(for_90) + len(for_80)
    assert share.foreign == len(for_80)
    assert share.targets == {"sm_80": len(for_80)}
    assert foreign_share([report], ["sm_90", "sm_86"]).foreign == 0


def test_what_an_sbom_lists_by_digest_is_not_named() -> None:
    library = host(fatbin(entry(cubin(90, KERNELS))))
    report = scan_bytes({"lib.so": library, "plain.so": build_library()})
    nothing = read_listed(b'{"bomFormat": "CycloneDX", "components": []}')
    assert {(item.path, item.target) for item in unlisted(report, nothing)} == {
        ("lib.so", ""),
        ("lib.so", "sm_90"),
        ("plain.so", ""),
    }
    digests = [hashlib.sha256(data).hexdigest() for data in (library, build_library())]
    inner = {"hashes": [{"alg": "SHA-256", "content": digests[1].upper()}]}
    outer = {"hashes": [{"alg": "SHA-256", "content": digests[0]}], "components": [inner]}
    listed = read_listed(json.dumps({"bomFormat": "CycloneDX", "components": [outer]}).encode())
    assert [item.target for item in unlisted(report, listed)] == ["sm_90"]


def test_spdx_lists_by_checksum_and_names_prove_nothing() -> None:
    library = build_library()
    report = scan_bytes({"lib.so": library})
    sums = [{"algorithm": "SHA256", "checksumValue": hashlib.sha256(library).hexdigest()}]
    files = [{"fileName": "lib.so", "checksums": sums}]
    said = {"spdxVersion": "SPDX-2.3", "files": files}
    assert not unlisted(report, read_listed(json.dumps(said).encode()))
    del files[0]["checksums"]
    assert len(unlisted(report, read_listed(json.dumps(said).encode()))) == 1


@pytest.mark.parametrize("data", [b"{}", b"[]", b"not json", b'{"spdxVersion": "SPDX-3.0"}'])
def test_what_is_no_sbom_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput):
        read_listed(data)
