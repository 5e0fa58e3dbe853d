"""T55: code that is run straight from the Hub cache, past every load point of the client."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.podkit import FILES, Pod

if TYPE_CHECKING:
    from pathlib import Path

WAYS = {
    "importlib": """
import importlib.util
spec = importlib.util.spec_from_file_location("direct", variant / "numbers_of_the_kernel.py")
spec.loader.exec_module(importlib.util.module_from_spec(spec))
""",
    "sys.path": "sys.path.insert(0, str(variant))\nimport numbers_of_the_kernel\n",
    "runpy": "import runpy\nrunpy.run_path(str(variant / 'numbers_of_the_kernel.py'))\n",
    "torch.ops.load_library": "torch.ops.load_library(variant / '_ops.so')\n",
    "a blob": "torch.ops.load_library((variant / '_ops.so').resolve())\n",
}
PROGRAM = """
import json, pathlib, sys
import torch
variant = pathlib.Path({variant!r})
try:
{way}
    print(json.dumps("ran"))
except OSError as exc:
    # torch says it in its own words and names ours as the cause.
    print(json.dumps(getattr(exc.__cause__ or exc, "reason", str(exc))))
"""


@pytest.fixture
def pod(tmp_path: Path) -> Pod:
    return Pod.make(
        tmp_path, files=FILES | {"numbers_of_the_kernel.py": b"ONE = 1\n", "_ops.so": b"no library"}
    )


def _program(pod: Pod, way: str) -> str:
    indented = "".join(f"    {line}\n" for line in WAYS[way].strip().splitlines())
    return PROGRAM.format(variant=str(pod.variant()), way=indented)


@pytest.mark.parametrize("way", sorted(WAYS))
def test_t55_code_from_the_cache_does_not_run_past_the_gate(pod: Pod, way: str) -> None:
    result = pod.run(_program(pod, way))

    assert result.value == "direct-load"
    assert result.reports[0]["reason"] == "direct-load"
    assert "straight from the cache" in result.stderr


@pytest.mark.parametrize("way", ["importlib", "sys.path", "runpy"])
def test_t55_observe_lets_it_run(pod: Pod, way: str) -> None:
    assert pod.run(_program(pod, way), KGATE_MODE="observe", KGATE_TRUST_ROOT=None).value == "ran"


def test_t55_everything_else_is_left_alone(pod: Pod) -> None:
    own = pod.home / "kernels--notes.py"
    own.write_text("VALUE = 1\n")
    program = f"""
import json, runpy, sys
import torch
print(json.dumps(runpy.run_path({str(own)!r})["VALUE"]))
"""
    assert pod.run(program).value == 1
