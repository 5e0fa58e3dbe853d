"""The seams of `kernels`: says early when one moves, and what the newest release does to kgate.

The first tests look at the installed version: every function that the tables name is hooked, and
every place in the library that could execute code from a file is one that somebody has looked at.
The last one takes the newest release of the registry, supported or not.
"""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
import urllib.request
import warnings
from pathlib import Path
from typing import Final

import kernels
import pytest

from kgate_client import hook
from kgate_client.hook import installed_version, supported_versions
from tests.podkit import GET, Pod

CLIENTS: Final = Path(__file__).parents[2] / ".cache" / "clients"
REGISTRY: Final = "https://pypi.org/pypi/kernels/json"
# Calls that execute what lies in a file, or hand it to the loader.
_EXECUTES: Final = {"exec_module", "load_library", "CDLL", "exec", "execfile", "run_path", "dlopen"}
# Where kernels 0.17 does so. The first two are hooked; the others open the system's own libraries.
LOOKED_AT: Final = {
    "importer.py:_import_from_path",
    "cli/benchmark.py:discover_benchmark_classes",
    "backends.py:_get_cuda",
    "cli/benchmark.py:_get_macos_gpu",
}


def _executing(package: Path) -> set[str]:
    """Return `file:function` of everything in a package that executes files."""
    found = set()
    for path in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.FunctionDef):
                continue
            calls = (call.func for call in ast.walk(node) if isinstance(call, ast.Call))
            names = {getattr(call, "attr", getattr(call, "id", "")) for call in calls}
            if names & _EXECUTES:
                found.add(f"{path.relative_to(package)}:{node.name}")
    return found


def test_the_installed_client_is_the_newest_that_is_supported() -> None:
    version = installed_version()
    assert version is not None
    assert version.rpartition(".")[0] == supported_versions()[-1]


def test_nothing_else_in_the_client_executes_files() -> None:
    """A new place here is a load path that the gate may not see: look, then list or hook it."""
    assert _executing(Path(kernels.__file__).parent) == LOOKED_AT


def test_every_seam_of_the_installed_client_is_hooked() -> None:
    table = hook._TABLES[supported_versions()[-1]]
    for name, patch in table.items():
        module = importlib.import_module(name)
        seams = [
            constant
            for constant in patch.__code__.co_consts
            if isinstance(constant, str) and constant.isidentifier() and not constant.isupper()
        ]
        for seam in seams:
            owner = getattr(module, "DepTreeNode", module) if seam == "load" else module
            found = getattr(owner, seam, None)
            assert found is not None, f"{name} has no {seam}"
            if callable(found) and not isinstance(found, type):
                assert hasattr(found, hook._ORIGINAL), f"{name}.{seam} is not hooked"


@pytest.mark.matrix
def test_the_newest_release_loads_or_falls_back_and_never_runs_unchecked(tmp_path: Path) -> None:
    with urllib.request.urlopen(REGISTRY, timeout=30) as response:
        newest = str(json.load(response)["info"]["version"])
    folder = CLIENTS / f"newest-{newest}"
    if not (folder / "ready").exists():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
        subprocess.run([*command, str(folder), f"kernels=={newest}"], check=True, timeout=300)
        (folder / "ready").touch()
    pod = Pod.make(tmp_path, admitted=False)

    result = pod.run_fresh(GET, PYTHONPATH=str(folder))

    assert result.value["outcome"] == "fallback"
    assert "kernel ran" not in result.stdout
    minor = newest.rpartition(".")[0]
    moved = _executing(folder / "kernels") - LOOKED_AT
    if minor not in supported_versions() or moved:
        warnings.warn(
            f"kernels {newest} is out: {result.value['reason']}; new places that execute files:"
            f" {sorted(moved) or 'none'}",
            stacklevel=1,
        )
