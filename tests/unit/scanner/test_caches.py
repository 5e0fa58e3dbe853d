"""Compile caches: whose they are, their entries, and entries that do not agree with themselves."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from kgate_cli.main import main
from kgate_scanner.cacherecords import read_record
from kgate_scanner.paths import scan_path
from tests.scankit import build_library, rules_of, scan_bytes

SAMPLES = Path(__file__).parents[2] / "assets" / "triton"
CUDA = "KZK24IU6ECT4QTFIJD3YS6DYZMG6RG4DTVRWFA7ZI5472QZQQ6VA"
HIP = "JMTU7CM3P5N5UF6ZT6PCUZ6BNXS3CSWSFI2HCS24FOSHFGKOGHCA"
HOST = "CRNKW3K4ODBT6QL6SJ36HHQLBELSVEXLV7HATCHPXAK4EANVDHZA/cuda_utils.cpython-311-x86_64.so"
INDUCTOR = "c4e2ot25w646ibwk5v5z3ny2sdm7m6jepoi6vh7a4mnfsdkbhysi"


def sample() -> dict[str, bytes]:
    """Return the files of a cache that Triton 3.9 wrote."""
    return {
        str(path.relative_to(SAMPLES)): path.read_bytes()
        for path in SAMPLES.rglob("*")
        if path.is_file()
    }


def changed(data: bytes, **fields: Any) -> bytes:  # values of JSON
    """Return a JSON document with other fields."""
    return json.dumps({**json.loads(data), **fields}).encode()


def caches_of(files: dict[str, bytes]) -> dict[str, dict[str, Any]]:
    return {str(cache["kind"]): cache for cache in scan_bytes(files).summary["caches"]}


def test_entries_of_triton_are_listed_with_kernel_target_and_options() -> None:
    report = scan_bytes(sample())
    (cache,) = report.summary["caches"]
    assert (cache["kind"], cache["kernels"], cache["hostLibraries"]) == ("triton", 2, 0)
    hip, cuda = cache["entries"]
    assert (cuda["name"], cuda["target"], cuda["version"]) == ("scale_kernel", "cuda 90", "3.9.0")
    assert cuda["compiled"] == ["compute_90a", "sm_90"]
    assert cuda["code"] == ["cubin", "ptx"]
    assert cuda["options"]["num_warps"] == 2
    assert cuda["options"]["shared"] == 0
    assert (hip["target"], hip["compiled"], hip["code"]) == ("hip gfx942", ["gfx942"], ["hsaco"])
    assert hip["options"]["warp_size"] == 64
    assert report.complete
    assert rules_of(report).isdisjoint({"KG-CACHE-001", "KG-CACHE-002", "KG-CACHE-003"})


@pytest.mark.parametrize(
    ("place", "target", "seen"),
    [
        (CUDA, {"backend": "cuda", "arch": 80}, "the record says cuda 80, the cubin is for sm_90"),
        (CUDA, {"backend": "hip", "arch": "gfx942"}, "the record says hip gfx942, the cubin is"),
        (HIP, {"backend": "hip", "arch": "gfx90a"}, "the record says hip gfx90a, the hsaco is"),
        (HIP, {"backend": "xpu", "arch": ""}, "the record says xpu , the hsaco is for gfx942"),
    ],
)
def test_a_record_for_another_gpu_than_its_code_is_found(
    place: str, target: dict[str, Any], seen: str
) -> None:
    files = sample()
    record = f"{place}/scale_kernel.json"
    files[record] = changed(files[record], target=target)
    found = [item for item in scan_bytes(files).findings if item.rule == "KG-CACHE-001"]
    assert {item.path for item in found} == {record}
    assert any(item.seen.startswith(seen) for item in found)


def test_a_record_of_a_kernel_that_the_code_does_not_hold_is_found() -> None:
    files = sample()
    record = f"{HIP}/scale_kernel.json"
    files[record] = changed(files[record], name="other_kernel")
    (found,) = (item for item in scan_bytes(files).findings if item.rule == "KG-CACHE-002")
    assert found.seen == "the hsaco holds scale_kernel, not other_kernel"


@pytest.mark.parametrize(
    "place",
    [
        "/tmp/elsewhere/scale_kernel.cubin",
        f"/x/{CUDA}/other.cubin",
        f"../{CUDA}/scale_kernel.cubin",
    ],
)
def test_a_group_that_leads_out_of_its_folder_is_found(place: str) -> None:
    files = sample()
    group = f"{CUDA}/__grp__scale_kernel.json"
    files[group] = json.dumps({"child_paths": {"scale_kernel.cubin": place}}).encode()
    (found,) = (item for item in scan_bytes(files).findings if item.rule == "KG-CACHE-003")
    assert (found.path, found.seen) == (group, f"names {place}")


def test_a_group_from_a_shared_cache_lists_names_only() -> None:
    files = sample()
    group = f"{CUDA}/__grp__scale_kernel.json"
    files[group] = b'{"child_paths": ["scale_kernel.cubin", "scale_kernel.json"]}'
    assert "KG-CACHE-003" not in rules_of(scan_bytes(files))


def test_launchers_in_a_cache_are_scanned_as_libraries_and_named() -> None:
    report = scan_bytes({**sample(), HOST: build_library()})
    assert report.files[HOST]["host"]["machine"] in {"x86_64", "aarch64"}
    (cache,) = report.summary["caches"]
    assert cache["hostLibraries"] == 1
    (found,) = (item for item in report.findings if item.rule == "KG-CACHE-004")
    assert (found.path, found.seen) == (HOST, "a library in a cache of triton")


def inductor(prefix: str = "") -> dict[str, bytes]:
    """Return files under the names that Inductor of torch 2.13 gives them."""
    return {
        f"{prefix}4e/{INDUCTOR}.main.so": build_library(),
        f"{prefix}4e/{INDUCTOR}.main.cpp": b'extern "C" void kernel() {}\n',
        f"{prefix}4e/{INDUCTOR}.py": b"import subprocess\nsubprocess.run(['id'])\n",
        f"{prefix}fxgraph/t7/ft7p/ri34": pickle.dumps({"graph": 1}),
    }


def test_a_cache_of_inductor_has_its_libraries_python_and_pickles_read() -> None:
    report = scan_bytes(inductor())
    (cache,) = report.summary["caches"]
    assert cache == {"kind": "inductor", "files": 4, "hostLibraries": 1, "pickles": 1}
    assert {"KG-CACHE-004", "KG-FILE-012", "KG-PY-003"} <= rules_of(report)


def test_a_cache_of_vllm_holds_those_of_its_compilers() -> None:
    root = "torch_compile_cache/1517964802/rank_0_0/"
    files = inductor(f"{root}inductor_cache/")
    files |= {f"{root}triton_cache/{name}": data for name, data in sample().items()}
    files[f"{root}backbone/vllm_compile_cache.py"] = b"{((1, 2), 0, 'inductor'): 'x'}"
    found = caches_of(files)
    assert set(found) == {"inductor", "triton", "vllm"}
    assert found["vllm"]["files"] == len(files)
    assert found["triton"]["kernels"] == 2
    said = [item.seen for item in scan_bytes(files).findings if item.rule == "KG-CACHE-004"]
    assert said == ["a library in a cache of inductor and vllm"]


def test_the_folder_of_one_rank_is_a_cache_of_vllm() -> None:
    files = inductor("1517964802/rank_0_0/inductor_cache/")
    files["1517964802/rank_0_0/backbone/vllm_compile_cache.py"] = b"{}"
    assert caches_of({**files, "notes.txt": b"x"})["vllm"]["files"] == len(files)


def test_best_configurations_of_helion_are_named() -> None:
    config = {
        "key": {"fields": {"hardware": "NVIDIA H200", "backend": "triton", "runtime_name": "13.0"}},
        "config": '{"block_sizes": [64]}',
    }
    files = {f"helion/{'a' * 64}.best_config": json.dumps(config).encode()}
    report = scan_bytes(files)
    assert report.summary["caches"][0]["kind"] == "helion"
    (facts,) = report.files.values()
    assert facts["record"]["hardware"] == "NVIDIA H200"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[" * 100_000,
        b"[]",
        b"{}",
        b'{"target": 1, "name": "x", "num_warps": 1}',
        b'{"target": {}, "name": 1, "num_warps": 1}',
        b"\xff",
    ],
)
def test_other_json_is_no_record(data: bytes) -> None:
    assert read_record(memoryview(data), "a/scale.json") == {}
    assert read_record(memoryview(data), "a/__grp__scale.json") == {}
    assert read_record(memoryview(data), "a.best_config") == {}


def test_odd_values_of_a_record_are_left_out() -> None:
    data = json.dumps(
        {"target": {"arch": [1]}, "name": "x", "num_warps": 10**20, "shared": "y", "debug": True}
    ).encode()
    record = read_record(memoryview(data), "x.json")
    assert (record["arch"], record["backend"], record["options"]) == ("", "", {"debug": True})


def test_a_variant_has_no_caches_in_its_report() -> None:
    assert "caches" not in scan_bytes({"config.json": b'{"a": 1}', "a.py": b"x = 1\n"}).summary


def test_the_command_shows_each_compiled_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, data in sample().items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    (scanned,) = scan_path(tmp_path)
    assert scanned.report.summary["device"]["targets"] == ["compute_90a", "gfx942", "sm_90"]
    monkeypatch.setenv("COLUMNS", "300")
    assert main(["scan", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "A compile cache of triton: 7 files, 2 kernels, 0 host libraries, 0 pickles." in said
    assert "num_warps=2 num_stages=3 shared=0" in said
