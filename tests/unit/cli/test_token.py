from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from kgate_cli.main import main

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "kgate.yaml"
    path.write_text("apiVersion: kgate.dev/v1\nupstream: https://hub.test\n", encoding="utf-8")
    return path


def run(config: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any]:
    code = main(["token", *words, "--config", str(config), "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_a_token_is_made_listed_and_revoked(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, made = run(config, capsys, "create", "ci", "--repo", "acme/*", "--days", "30")
    assert code == 0
    assert made["token"].startswith(f"kg_{made['id']}_")
    _, listed = run(config, capsys, "list")
    assert [(item["id"], item["name"], item["counts"]) for item in listed["tokens"]] == [
        (made["id"], "ci", True)
    ]
    assert made["token"] not in json.dumps(listed)
    assert run(config, capsys, "revoke", made["id"])[0] == 0
    _, listed = run(config, capsys, "list")
    assert listed["tokens"][0]["counts"] is False


def test_people_see_the_token_once_and_a_table_later(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["token", "create", "ci", "--repo", "acme/*", "--config", str(config)]) == 0
    text = capsys.readouterr().out.strip()
    assert text.startswith("kg_")
    assert main(["token", "list", "--config", str(config)]) == 0
    said = capsys.readouterr().out
    assert "ci" in said
    assert "acme/*" in said
    assert text.rpartition("_")[2] not in said
    assert main(["token", "revoke", text.split("_")[1], "--config", str(config)]) == 0
    main(["token", "list", "--config", str(config)])
    assert "revoked" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["create", "ci", "--repo", "acme"], ["revoke", "000000000000"]])
def test_mistakes_are_explained(
    config: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    code, document = run(config, capsys, *words)
    assert code != 0
    assert document["message"]
