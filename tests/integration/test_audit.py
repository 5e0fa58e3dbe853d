"""Who changed what, and when: every command that changes something stands in a chained log."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from kgate_cli.actor import who_runs
from kgate_mirror_server.ingest.sync import refresh_trust
from tests.sitekit import CONNECTED, REPO, Site, built_kernels, time_now


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Site:
    folder = tmp_path_factory.mktemp("made")
    found = Site.found(folder / "site", CONNECTED, kernels=built_kernels(folder / "cache"))
    assert found.kgate("sync") == 0
    return found


@pytest.fixture
def site(tmp_path: Path, made: Site) -> Site:
    return Site(Path(shutil.copytree(made.folder, tmp_path / "site")))


def entries(site: Site, capsys: pytest.CaptureFixture[str], *options: str) -> list[Any]:
    capsys.readouterr()
    assert site.kgate("audit", "export", "--format", "jsonl", *options) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def attack(site: Site, statement: str) -> None:
    engine = create_engine(f"sqlite:///{site.folder / 'kgate-data' / 'kgate.db'}")
    with engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()


def test_a_command_stands_in_the_log_with_who_what_and_outcome(
    site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_REPOSITORY", "bank/kernels")
    monkeypatch.setenv("GITHUB_ACTOR", "ada")
    monkeypatch.setenv("GITHUB_RUN_ID", "77")
    assert site.kgate("revoke", REPO, "--reason", "CVE-2026-31337") == 0
    assert site.kgate("token", "create", "ci", "--repo", "acme/*") == 0
    assert site.kgate("reinstate", "acme/unknown") != 0
    found = entries(site, capsys)
    assert [item["action"] for item in found] == [
        "publish", "sync", "revoke", "token create", "reinstate",
    ]  # fmt: skip
    revoked = found[2]
    assert revoked["what"]["reason"] == "CVE-2026-31337"
    assert revoked["what"]["outcome"] == "done"
    assert revoked["who"]["ci"] == "github bank/kernels ada 77"
    assert revoked["who"]["user"]
    assert revoked["who"]["keys"], "the keys that were used"
    assert found[4]["what"]["outcome"] == "not-found"


def test_t20_no_secret_is_in_the_log(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert site.kgate("token", "create", "ci", "--repo", "acme/*") == 0
    secret = capsys.readouterr().out.strip()
    assert secret not in json.dumps(entries(site, capsys))


def test_commands_that_only_look_leave_no_entry(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    before = entries(site, capsys)
    for command in (("ls",), ("show", REPO), ("verify", REPO), ("gc", "--dry-run"), ("scrub",)):
        assert site.kgate(*command) == 0
    assert entries(site, capsys) == before


def test_only_what_came_since_a_day_is_exported(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(entries(site, capsys, "--since", "2020-01-01")) == 2
    assert entries(site, capsys, "--since", "2999-01-01") == []


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE audit SET entry = replace(entry, 'sync', 'ls') WHERE sequence = 2", "edited"),
        ("DELETE FROM audit WHERE sequence = 1", "missing"),
        ("DELETE FROM audit WHERE sequence = 2", "ends at entry 1"),
        ("DELETE FROM audit", "ends at entry 0"),
    ],
)
def test_a_log_that_somebody_edited_or_cut_is_found_by_its_signed_head(
    site: Site, capsys: pytest.CaptureFixture[str], statement: str, said: str
) -> None:
    assert site.kgate("trust", "refresh") == 0
    attack(site, "DELETE FROM audit WHERE sequence > 2")
    (site.folder / "trust" / "audit.head").unlink()
    assert site.kgate("audit", "verify") == 0
    mirror = site.mirror()
    try:
        refresh_trust(mirror, time_now())
    finally:
        mirror.close()
    attack(site, statement)
    capsys.readouterr()
    assert site.kgate("audit", "verify") == 1
    assert said in capsys.readouterr().err
    # What signs every minute does not put its name under the shorter log.
    head = (site.folder / "trust" / "audit.head").read_bytes()
    if "DELETE" in statement and "= 1" not in statement:
        site.kgate("trust", "refresh")
        assert (site.folder / "trust" / "audit.head").read_bytes() == head


def test_a_head_that_was_kept_elsewhere_finds_a_log_written_anew(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert site.kgate("audit", "export", "--json") == 0
    head = json.loads(capsys.readouterr().out)["head"]
    assert site.kgate("audit", "verify", "--head", head) == 0
    attack(site, "DELETE FROM audit")
    (site.folder / "trust" / "audit.head").unlink()
    assert site.kgate("audit", "verify") == 0
    assert site.kgate("audit", "verify", "--head", head) == 1
    assert site.kgate("audit", "verify", "--head", "nonsense") == 2


def test_who_runs_is_the_user_and_what_the_ci_says() -> None:
    plain = who_runs({})
    assert plain["user"]
    assert plain["host"]
    assert "ci" not in plain
    gitlab = {"GITLAB_CI": "true", "CI_PROJECT_PATH": "bank/k", "GITLAB_USER_LOGIN": "bob"}
    assert who_runs(gitlab)["ci"] == "gitlab bank/k bob"
    assert len(who_runs({"GITLAB_CI": "1", "CI_PROJECT_PATH": "x" * 9999})["ci"]) <= 200
