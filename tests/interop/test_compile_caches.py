"""Caches that Triton and torch's Inductor write on this machine, without a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kgate_scanner.paths import scan_path
from tests.interop import toolbox

pytestmark = pytest.mark.matrix

TRITON = "triton==3.9.0"
SCRIPT = Path(__file__).with_name("compile_with_triton.py")
INDUCTOR = """
import torch
def scale(x, y):
    return torch.nn.functional.gelu(x) * y + x.sin()
torch.compile(scale)(torch.ones(64, 64), torch.ones(64, 64))
"""


def test_a_cache_that_triton_wrote_is_read_to_the_last_kernel(tmp_path: Path) -> None:
    python = toolbox.python("triton", TRITON)
    toolbox.run(python, SCRIPT, tmp_path / "cache", tmp_path / "stubs")
    (found,) = scan_path(tmp_path / "cache")
    (cache,) = found.report.summary["caches"]
    assert (cache["kind"], cache["kernels"], cache["hostLibraries"]) == ("triton", 2, 1)
    entries = {entry["target"]: entry for entry in cache["entries"]}
    assert set(entries) == {"cuda 90", "hip gfx942"}
    assert entries["cuda 90"]["compiled"] == ["compute_90a", "sm_90"]
    assert entries["hip gfx942"]["compiled"] == ["gfx942"]
    assert {entry["options"]["num_warps"] for entry in entries.values()} == {2}
    host = next(facts for path, facts in found.report.files.items() if "cuda_utils" in path)
    assert "dlopen" in host["host"]["dangerous"]["loading"]
    assert "PyInit_cuda_utils" in host["host"]["python"]["init"]
    assert found.report.complete
    rules = {finding.rule for finding in found.report.findings}
    assert rules.isdisjoint({"KG-CACHE-001", "KG-CACHE-002", "KG-CACHE-003", "KG-DEV-013"})


def test_a_cache_that_inductor_wrote_is_read_whole(tmp_path: Path) -> None:
    # As vLLM lays it out: a folder of the rank with the compilers' caches inside.
    rank = tmp_path / "torch_compile_cache/1517964802/rank_0_0"
    subprocess.run(
        [sys.executable, "-c", INDUCTOR],
        check=True,
        cwd=tmp_path,
        env=os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(rank / "inductor_cache")},
    )
    (rank / "backbone").mkdir()
    (rank / "backbone/vllm_compile_cache.py").write_text("{}\n", encoding="utf-8")
    (found,) = scan_path(tmp_path)
    caches = {cache["kind"]: cache for cache in found.report.summary["caches"]}
    assert set(caches) == {"inductor", "vllm"}
    assert caches["inductor"]["hostLibraries"] >= 1
    assert caches["inductor"]["pickles"] >= 2
    assert found.report.summary["python"]["files"] >= 2
    assert found.report.complete
    rules = {finding.rule for finding in found.report.findings}
    assert {"KG-CACHE-004", "KG-FILE-012"} <= rules
