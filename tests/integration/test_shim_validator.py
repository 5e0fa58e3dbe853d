"""Beside a validator of the client's own, as upstream plans one: both look, each says its own.

What is known of it: it is asked between installing and loading a kernel, warns, and keeps a receipt
of what it saw. A copy of the installed client gets such a call here; the shim is as it is.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

import kernels
import pytest

from tests.podkit import GET, MODEL, Pod

LAST: Final = "    return tree_only_local.load()\n"
VALIDATED: Final = """    _validate(tree_only_local)
    return tree_only_local.load()


def _validate(node):
    import warnings

    path = Path(node.location.variant_path)
    warnings.warn(f"upstream's validator saw {path.name}: no signature")
    receipts = path.parents[3] / ".receipts"
    receipts.mkdir(exist_ok=True)
    (receipts / path.name).write_text("seen")
    for dependency in node.deps:
        _validate(dependency)
"""


@pytest.fixture(scope="module")
def validating(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a search path with the client as it may look one day."""
    folder = tmp_path_factory.mktemp("client")
    package = folder / "kernels"
    shutil.copytree(
        Path(kernels.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__")
    )
    load = package / "load.py"
    text = load.read_text(encoding="utf-8")
    assert text.count(LAST) == 1, "the client's loader looks different now: look at it again"
    load.write_text(text.replace(LAST, VALIDATED), encoding="utf-8")
    return str(folder)


def _with(path: str, program: str) -> str:
    return f"import sys\nsys.path.insert(0, {path!r})\n{program}"


def test_an_admitted_kernel_passes_both(tmp_path: Path, validating: str) -> None:
    pod = Pod.make(tmp_path)

    first = pod.run(_with(validating, GET))
    again = pod.run(_with(validating, MODEL + "\nprint(json.dumps(run(version=1)))"))

    assert first.value["outcome"] == "loaded"
    assert first.value["file"].startswith(str(pod.cache / "sealed"))
    assert again.value["outcome"] == "loaded"
    # Its receipts lie beside the variant; in it they would break the digest that it checks.
    assert list(pod.variant().parents[3].glob(".receipts/*"))
    for result in (first, again):
        assert "upstream's validator saw torch-cpu" in result.stderr
        assert [report["outcome"] for report in result.reports] == ["loaded"]


def test_what_only_warns_upstream_is_refused_here(tmp_path: Path, validating: str) -> None:
    pod = Pod.make(tmp_path, admitted=False)

    result = pod.run(_with(validating, GET))

    assert result.value["reason"] == "no-attestation"
    assert "upstream's validator saw torch-cpu" in result.stderr
    assert "kernel ran" not in result.stdout
