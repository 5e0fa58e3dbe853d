"""The CUDA variant of the example kernel, and a Triton kernel, qualified on a GPU.

Run by whoever has one: `pytest -m gpu tests/integration/test_qualify_gpu.py`. It needs a CUDA build
of torch 2.13 and, for the second, Triton.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Final

import pytest

from kgate_cli.main import main
from kgate_mirror_server.examples import build_gelu_and_mul, default_cache
from tests.qualifykit import cases, write_kernel

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.gpu

TRITON: Final = """
import torch
import triton
import triton.language as tl

@triton.jit
def _add(out, x, y, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n
    tl.store(out + at, tl.load(x + at, mask=inside) + tl.load(y + at, mask=inside), mask=inside)

def add(out, x, y):
    _add[(triton.cdiv(x.numel(), 1024),)](out, x, y, x.numel(), BLOCK=1024)
"""
CUDA: Final = "torch213-cxx11-cu130-x86_64-linux"


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, object]]:
    code = main([*words, "--device", "cuda", "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_the_cuda_variant_gives_the_fallbacks_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    built = build_gelu_and_mul(default_cache(os.environ))
    code, shown = run(capsys, "qualify", str(built / "build" / CUDA), "--no-speed")
    assert code == 0, shown
    code, shown = run(capsys, "bench", str(built / "build" / CUDA))
    assert code == 0, shown
    assert shown["timed"]


def test_a_triton_kernel_is_compiled_in_its_confinement_and_is_right(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "cases.json"
    file.write_bytes(cases().data)
    variant = write_kernel(tmp_path / "triton", TRITON)
    code, shown = run(capsys, "qualify", str(variant), "--cases", str(file), "--no-speed")
    assert code == 0, shown
