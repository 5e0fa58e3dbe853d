"""The scan of one file as a whole: limits, judgements, JSON, repeatability."""

from __future__ import annotations

import json
import struct
import tracemalloc

import pytest
import zstandard

from kgate_core import strictjson
from kgate_scanner.device import DeviceLimits
from kgate_scanner.device.images import DeviceKernel, Tool
from tests.unit.scanner.device.builders import (
    Kernel,
    Sec,
    ccob,
    cubin,
    entry,
    fatbin,
    hip_bundle,
    host,
    hsaco,
    ptx,
    sycl_host,
)
from tests.unit.scanner.device.scanning import rules_of, said, scan

ONE = host(fatbin(entry(cubin(90), compression="zstd"), entry(ptx(), kind=1)))


def test_the_same_bytes_always_give_the_same_report() -> None:
    first, second = scan(ONE), scan(ONE)
    assert first == second
    assert strictjson.dumps(first.to_json()) == strictjson.dumps(second.to_json())


def test_the_json_has_a_summary_and_every_image() -> None:
    document = scan(ONE).to_json()
    assert document["targets"] == ["compute_90", "sm_90"]
    assert document["kinds"] == {"cubin": 1, "ptx": 1}
    assert document["compressions"] == {"none": 1, "zstd": 1}
    assert (document["imageCount"], document["kernelCount"]) == (2, 2)
    first = document["images"][0]
    assert first["digest"].startswith("sha256:")
    assert first["kernels"][0] == {
        "name": "scale",
        "registers": 24,
        "shared": 1024,
        "stack": 8,
        "constant": 400,
        "params": 48,
        "max_threads": 256,
    }
    assert json.loads(json.dumps(document)) == document


def test_kernels_can_be_left_out_of_the_json() -> None:
    document = scan(ONE).to_json(kernels=False)
    assert "kernels" not in document["images"][0]
    assert document["images"][0]["kernelCount"] == 1


def test_unknown_numbers_are_left_out_not_zero() -> None:
    assert DeviceKernel("k", shared=0).to_json() == {"name": "k", "shared": 0}
    assert Tool("ptxas").to_json() == {"name": "ptxas"}


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (DeviceLimits(image_bytes=100), "larger than the 100 allowed"),
        (DeviceLimits(expanded_bytes=100), "too many for this file"),
        (DeviceLimits(images=1), "more than 1 images"),
        (DeviceLimits(kernels=1), "more than 1 kernels"),
        (DeviceLimits(kernel_name_bytes=3), "overlong names"),
        (DeviceLimits(containers=0), "more than 0 containers"),
    ],
)
def test_a_limit_that_is_met_is_a_finding(limits: DeviceLimits, words: str) -> None:
    found = scan(ONE, limits)
    assert "KG-DEV-010" in rules_of(found)
    assert words in said(found)
    assert not found.complete


def test_findings_beyond_the_limit_are_counted() -> None:
    many = fatbin(*(entry(cubin(80), arch=90) for _ in range(20)))
    found = scan(host(many), DeviceLimits(findings=5))
    assert rules_of(found).count("KG-DEV-004") == 5
    assert "15 more findings are not listed" in said(found)


def test_the_search_for_containers_gives_up_after_many_damaged_ones() -> None:
    junk = (struct.pack("<IHHQ", 0xBA55ED50, 9, 16, 0)) * 50
    found = scan(host(junk), DeviceLimits(retries=10))
    assert "more than 10 damaged containers" in said(found)


def test_the_search_for_hidden_code_gives_up_after_many_candidates() -> None:
    found = scan(b"x" + b"CCOB...." * 50, DeviceLimits(candidates=10))
    assert rules_of(found) == ["KG-DEV-010"]


def _bomb(size: int) -> bytes:
    return zstandard.ZstdCompressor().compress(bytes(size))


def _declared(frame: bytes, size: int) -> bytes:
    packed = struct.pack("<4sHHQQQ", b"CCOB", 3, 1, 32 + len(frame), size, 0)
    return packed + frame


@pytest.mark.parametrize(
    "data",
    [
        host(_declared(_bomb(300 << 20), 300 << 20), section=".hip_fatbin"),
        host(_declared(_bomb(300 << 20), 1000), section=".hip_fatbin"),
        host(ccob(bytes(300 << 20), method="zlib")[:8] + bytes(99), section=".hip_fatbin"),
        sycl_host("spir64", bytes(300 << 20), listed=False),
        host(fatbin(entry(b"\0" * 64, compression="lz4", size=1 << 30))),
    ],
    ids=["honest", "lying", "zlib", "sycl", "lz4"],
)
def test_a_bomb_costs_no_memory(data: bytes) -> None:
    tracemalloc.start()
    found = scan(data, DeviceLimits(image_bytes=64 << 20))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert {"KG-DEV-005", "KG-DEV-010", "KG-DEV-001"} & set(rules_of(found))
    assert peak < 80 << 20
    assert not found.complete


def test_images_are_read_one_after_the_other_when_memory_is_short() -> None:
    data = host(*(fatbin(entry(cubin(90), compression="zstd")) for _ in range(6)))
    assert scan(data, DeviceLimits(in_flight_bytes=1)) == scan(data)


def test_debug_builds_are_one_finding_for_the_file() -> None:
    found = scan(host(fatbin(entry(cubin(80, debug=True), arch=80), entry(cubin(90), flags=0x13))))
    assert rules_of(found) == ["KG-DEV-007"]
    assert "2 images (sm_80, sm_90)" in said(found)


def test_build_paths_are_one_finding_each() -> None:
    args = "-arch sm_90 -L/home/ci/build/lib -L/usr/local/cuda/lib64 -o /tmp/x.cubin"
    one = entry(cubin(90, tool_args=args))
    found = scan(host(fatbin(one, one)))
    assert rules_of(found) == ["KG-DEV-008", "KG-DEV-008"]
    assert sorted(finding.seen for finding in found.findings) == [
        "/home/ci/build/ in 2 images",
        "/tmp/ in 2 images",
    ]


def test_a_file_without_machine_code_is_reported() -> None:
    found = scan(host(fatbin(entry(ptx(), kind=1))))
    assert rules_of(found) == ["KG-DEV-009"]
    assert "1 images, all ptx" in said(found)


def test_vendors_may_share_one_file() -> None:
    blob = hip_bundle(("gfx90a", hsaco()))
    data = host(fatbin(entry(cubin(90))), extra=(Sec(".hip_fatbin", blob, align=4096),))
    found = scan(data)
    assert found.targets == ("gfx90a", "sm_90")
    assert rules_of(found) == ["KG-DEV-002"]


def test_overlapping_device_sections_are_read_once() -> None:
    blob = fatbin(entry(cubin(90)))
    data = host(blob, extra=(Sec("__nv_relfatbin", b"", size=0), Sec(".nv_fatbin", blob)))
    assert len(scan(data).images) == 2


def test_damaged_code_lists_the_first_reasons_only() -> None:
    kernels = tuple(Kernel(f"k{i}") for i in range(8))
    broken = cubin(90, kernels).replace(b"\x04\x17\x0c\x00", b"\x04\x17\xff\xff")
    found = scan(host(fatbin(entry(broken))))
    assert rules_of(found) == ["KG-DEV-013"]
    assert "and 5 more" in said(found)
