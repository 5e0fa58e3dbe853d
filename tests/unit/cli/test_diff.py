"""`kgate diff`: two paths, or two kernels of the mirror."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from kgate_cli.main import main
from kgate_mirror_server.examples import default_cache
from kgate_mirror_server.examples.build import build_gelu_and_mul
from tests import repos
from tests.ingestkit import make_site
from tests.scankit import build_library

if TYPE_CHECKING:
    from pathlib import Path

REPO = "kernels-community/gelu-and-mul"


@pytest.fixture
def libraries(tmp_path: Path) -> tuple[str, str]:
    before, after = tmp_path / "before.so", tmp_path / "after.so"
    before.write_bytes(build_library("int first(int a) { return a; }"))
    after.write_bytes(build_library("int second(int a) { return a; }"))
    return str(before), str(after)


def test_the_lines_name_what_came_and_what_went(
    libraries: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["diff", *libraries]) == 0
    out = capsys.readouterr().out
    assert "exported symbols + second" in out
    assert "exported symbols - first" in out


def test_the_json_has_both_lists_and_the_exit_code_is_asked_for(
    libraries: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    before, after = libraries
    assert main(["diff", before, after, "--json", "--exit-code"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert said["schema"] == "kgate.dev/diff/v1"
    (compared,) = said["compared"].values()
    assert compared["exports"] == {"added": ["second"], "removed": ["first"]}
    assert main(["diff", before, before, "--exit-code"]) == 0


def test_variants_on_one_side_only_are_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("torch-cpu", "torch-cuda")
    for side, variants in (("old", names[:1]), ("new", names)):
        for name in variants:
            folder = tmp_path / side / "build" / name
            folder.mkdir(parents=True)
            (folder / "metadata.json").write_text("{}")
            (folder / "__init__.py").write_text("")
    assert main(["diff", str(tmp_path / "old"), str(tmp_path / "new"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["variants"] == {"added": ["torch-cuda"], "removed": []}
    assert said["differs"]


def test_what_is_neither_a_path_nor_a_mirrored_kernel_is_said_to_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["diff", "org/name@v1", "org/name@v2", "-c", str(tmp_path / "kgate.yaml")])
    assert code != 0
    assert "neither a path" in capsys.readouterr().err


def test_a_mirrored_kernel_is_compared_as_it_was_scanned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    built = build_gelu_and_mul(default_cache(os.environ), native=False, cuda=False)
    repos.copy_repo(built, tmp_path / "built" / REPO)
    site = make_site(tmp_path / "site", str(tmp_path / "built"))
    site.pin(f"repo: {REPO}, version: 1")
    site.sync()
    capsys.readouterr()
    here = tmp_path / "built" / REPO
    words = ["diff", f"{REPO}@v1", str(here), "-c", str(site.config_path), "--json"]
    assert main(words) == 0
    assert all(
        not item["files"]["changed"]
        for item in json.loads(capsys.readouterr().out)["compared"].values()
    )
    source = next(here.rglob("__init__.py"))
    source.write_text(source.read_text() + "\nimport socket\n")
    assert main(words) == 0
    said = json.loads(capsys.readouterr().out)["compared"]
    assert [item["pythonImports"]["added"] for item in said.values()] == [["socket"]]
