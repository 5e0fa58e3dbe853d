"""`kgate policy eval`: the mirror, a lock, and files that were saved."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from kgate_cli.main import main
from kgate_mirror_server.examples import default_cache
from kgate_mirror_server.examples.build import build_gelu_and_mul
from tests import repos
from tests.ingestkit import make_site

if TYPE_CHECKING:
    from pathlib import Path

    from tests.ingestkit import Site

REPO = "kernels-community/gelu-and-mul"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    folder = tmp_path_factory.mktemp("eval")
    built = build_gelu_and_mul(default_cache(os.environ), native=False, cuda=False)
    repos.copy_repo(built, folder / "built" / REPO)
    made = make_site(folder / "site", str(folder / "built"))
    made.pin(f"repo: {REPO}, version: 1")
    made.sync()
    return made


def ask(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any]:
    code = main(["policy", "eval", *words, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_a_saved_decision_is_the_same_without_the_site(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = ["--config", str(site.config_path)]
    saved = tmp_path / "saved"
    code, first = ask(capsys, "--save", str(saved), *config)
    assert code == 0
    (file,) = saved.glob("*.json")
    nowhere = ["--config", str(tmp_path / "nowhere.yaml")]
    assert ask(capsys, "--evidence", str(file), *nowhere) == (0, first)
    assert ask(capsys, "--evidence", str(saved), *nowhere) == (0, first)
    strict = tmp_path / "strict.yaml"
    strict.write_text("apiVersion: kgate.dev/v1\nkind: Policy\nname: s\nextends: production\n")
    code, said = ask(capsys, "--evidence", str(saved), "--policy", str(strict), *nowhere)
    assert code == 1
    assert list(said["policies"]) == ["s"]


def test_changed_evidence_is_refused(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ask(capsys, "--save", str(tmp_path), "--config", str(site.config_path))
    (file,) = tmp_path.glob("*.json")
    data = file.read_bytes()
    file.write_bytes(data.replace(b'"outcome":"warn"', b'"outcome":"pass"', 1))
    code, said = ask(capsys, "--evidence", str(file))
    assert (code, said["schema"]) == (1, "kgate.dev/error/v1")
    assert "does not follow" in said["message"]


def test_a_lock_is_asked_about_and_what_is_not_mirrored_is_a_no(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = ["--config", str(site.config_path)]
    lock = site.folder / "kgate.lock"
    assert ask(capsys, "--lock", str(lock), *config)[0] == 0
    text = lock.read_text(encoding="utf-8")
    hexed = json.loads(text)["kernels"][0]["variants"]["torch-cpu"]["manifest"]
    (tmp_path / "kgate.lock").write_text(text.replace(hexed, f"sha256:{'0' * 64}"), "utf-8")
    code, said = ask(capsys, "--lock", str(tmp_path / "kgate.lock"), *config)
    assert (code, len(said["not_mirrored"]), said["decisions"]) == (1, 1, [])


def test_evidence_goes_with_no_reference_and_an_empty_folder_is_a_no(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["policy", "eval", REPO, "--evidence", str(tmp_path)]) == 2
    assert main(["policy", "eval", "--evidence", str(tmp_path)]) == 1
    assert "--save" in capsys.readouterr().err


def test_a_tenants_file_is_checked_and_what_an_expression_probably_means_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "team.yaml"
    file.write_text(
        "apiVersion: kgate.dev/v1\nkind: KernelPolicy\nmetadata: {name: own}\n"
        'spec: {validations: [{expression: "kernel.files.all(f, f.size > 0)"}]}\n'
    )
    assert main(["policy", "check", str(file), "--tenant", "team-a", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["expressions"] == ["own"]
    assert "true for an empty list" in said["advice"][0]
    assert main(["policy", "check", str(file)]) == 4
    assert "--tenant" in capsys.readouterr().err
