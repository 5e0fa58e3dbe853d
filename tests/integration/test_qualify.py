"""A kernel beside its fallback: what is right passes, and every kind of wrong is caught."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from kgate_cli.main import main
from kgate_client.qualify.casefile import SHIPPED, CaseFile, shipped_for
from kgate_core.errors import InvalidInput, NotFound
from tests.qualifykit import RETURNING, RIGHT, cases, reasons, try_kernel, write_kernel

if TYPE_CHECKING:
    from pathlib import Path


def test_a_right_kernel_passes_and_is_timed(tmp_path: Path) -> None:
    result = try_kernel(tmp_path, RIGHT, speed=True)
    assert result["passed"], reasons(result)
    assert result["maxAbsErrorPpm"] == 0
    assert result["speedupPpm"] > 0
    assert [(item["function"], item["dtype"]) for item in result["timed"]] == [
        ("add", "float32"),
        ("add", "float32"),
    ]
    assert all(item["kernelNs"] > 0 and item["fallbackNs"] > 0 for item in result["timed"])
    assert result["host"]["torch"]
    assert "network" in result["confined"]
    assert "files" in result["confined"]


WRONG = {
    "wrong_numbers": ("out.copy_(x - y)", "not close"),
    "wrong_for_one_dtype": (
        "out.copy_(x + y + (1 if x.dtype == torch.float16 else 0))",
        "not close",
    ),
    "wrong_for_one_shape": ("out.copy_(x + y + (1 if x.dim() == 2 else 0))", "not close"),
    "not_a_number": ("out.copy_((x + y) * float('nan'))", "nan"),
    "never_the_same": ("out.copy_(x + y + torch.rand(()) * 5e-4)", "two different answers"),
    "knows_the_seeds": ("out.copy_(x + y if x.flatten()[0] in KNOWN else x)", "not close"),
    "no_answer": ("pass", "not close"),
    "changes_its_input": ("out.copy_(x.add_(y))", "changed its input x"),
    "writes_elsewhere": (
        (
            "out.copy_(x + y); "
            "out.as_strided((8,), (1,), out.storage_offset() + out.numel() + 16).zero_()"
        ),
        "outside of its tensors",
    ),
    "raises": ("raise ValueError('no such luck')", "no such luck"),
}
"""Functions that live on after they were wrong, and what is said of them."""
KNOWN = """
import torch
KNOWN = [torch.randn(n, generator=torch.Generator().manual_seed(0))[0] for n in (8, 15)]
KNOWN += [one.half() for one in KNOWN]
"""
FATAL = {
    "a crash": ("import ctypes\ndef add(out, x, y):\n    ctypes.string_at(0)\n", "SIGSEGV"),
    "an end": ("import os\ndef add(out, x, y):\n    os._exit(0)\n", "ended with code 0"),
    "cannot be imported": ("import nowhere_at_all\n", "cannot be loaded"),
}


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """What was found out about each function, in both dtypes and shapes."""
    source = KNOWN + "".join(
        f"def {name}(out, x, y):\n    {body}\n" for name, (body, _) in WRONG.items()
    )
    one = json.loads(cases(dtypes=["float32", "float16"]).data)
    one["cases"] = [one["cases"][0] | {"function": name} for name in [*WRONG, "missing"]]
    file = CaseFile.parse(json.dumps(one).encode())
    result = try_kernel(tmp_path_factory.mktemp("wrong"), source, file)
    assert not result["passed"]
    assert result["timed"] == [], "what is wrong is not timed"
    found: dict[str, list[dict[str, Any]]] = {}
    for item in result["tried"]:
        found.setdefault(item["function"], []).append(item)
    return found


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_kernel_is_caught(wrong: dict[str, list[dict[str, Any]]], kind: str) -> None:
    said = " ".join(item.get("why", "") for item in wrong[kind])
    assert WRONG[kind][1] in said.lower() or WRONG[kind][1] in said


def test_what_is_wrong_in_one_dtype_or_shape_is_said_of_that_one(
    wrong: dict[str, list[dict[str, Any]]],
) -> None:
    by_dtype = {(item["dtype"], item["equal"]) for item in wrong["wrong_for_one_dtype"]}
    assert by_dtype == {("float32", True), ("float16", False)}
    by_shape = {(len(item["shape"]["x"]), item["equal"]) for item in wrong["wrong_for_one_shape"]}
    assert by_shape == {(1, True), (2, False)}


def test_a_function_that_is_not_there_is_named(wrong: dict[str, list[dict[str, Any]]]) -> None:
    assert all("missing" in item["why"] for item in wrong["missing"])


@pytest.mark.parametrize("kind", FATAL)
def test_a_kernel_that_ends_its_process_has_failed(tmp_path: Path, kind: str) -> None:
    source, said = FATAL[kind]
    result = try_kernel(tmp_path, source)
    assert not result["passed"]
    assert said in reasons(result)


def test_a_kernel_that_hangs_has_failed_when_its_time_is_over(tmp_path: Path) -> None:
    source = "import time\ndef add(out, x, y):\n    time.sleep(3600)\n"
    result = try_kernel(tmp_path, source, timeout=1.0)
    assert not result["passed"]
    assert "no answer in 1 seconds" in reasons(result)


def test_a_returned_view_of_the_input_is_no_answer(tmp_path: Path) -> None:
    right = try_kernel(tmp_path / "right", RETURNING, cases(returning=True))
    assert right["passed"], reasons(right)
    aliasing = "def add(x, y):\n    return x\n"
    result = try_kernel(tmp_path / "wrong", aliasing, cases(returning=True))
    assert not result["passed"]
    assert "view of its input" in reasons(result)


def test_the_command_says_yes_and_no_and_writes_the_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_kernel(tmp_path / "good", RIGHT)
    write_kernel(tmp_path / "bad", "def add(out, x, y):\n    out.copy_(x - y)\n")
    file, out = tmp_path / "cases.json", tmp_path / "result.json"
    file.write_bytes(cases().data)
    options = ["--cases", str(file), "--no-speed", "--as", "lab@example.org"]
    assert main(["qualify", str(tmp_path / "good"), *options, "--out", str(out), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["schema"] == "kgate.dev/qualify/v1"
    assert shown["result"] == json.loads(out.read_bytes())
    assert shown["result"]["submitter"] == {"name": "lab@example.org"}
    assert main(["qualify", str(tmp_path / "bad"), *options]) == 1
    assert "NOT EQUAL" in capsys.readouterr().out


def test_bench_shows_times_or_why_there_are_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_kernel(tmp_path / "good", RIGHT)
    file = tmp_path / "cases.json"
    file.write_bytes(cases(shapes=[{"x": [8], "y": [8], "out": [8]}]).data)
    assert main(["bench", str(tmp_path / "good"), "--cases", str(file)]) == 0
    assert "FALLBACK µs" in capsys.readouterr().out
    assert main(["bench", str(tmp_path / "good"), "--cases", str(file), "--device", "cuda"]) == 4


def test_the_shipped_cases_can_be_read_and_are_found_by_name() -> None:
    names = {CaseFile.read(path).name for path in SHIPPED.glob("*.json")}
    assert {"activation", "gelu-and-mul", "relu", "rmsnorm"} <= names
    assert shipped_for("kernels-community/gelu-and-mul").name == "gelu-and-mul"
    with pytest.raises(NotFound, match="no cases for acme/unknown"):
        shipped_for("acme/unknown")


@pytest.mark.parametrize(
    "change",
    [
        {"dtypes": ["int8"]},
        {"shapes": []},
        {"shapes": [{"x": [0], "y": [8], "out": [8]}]},
        {"shapes": [{"x": [8], "out": [8]}]},
        {"call": ["out"]},
        {"call": [True, "x"]},
        {"seeds": ["one"]},
        {"function": "__import__('os')"},
        {"tolerances": {"float32": {"atol": -1}}},
        {"shapes": [{"x": [2**15, 2**15], "y": [8], "out": [8]}]},
        {"unknown": 1},
    ],
)
def test_a_case_file_with_a_mistake_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="case"):
        cases(**change)
