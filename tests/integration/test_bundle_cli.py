from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.bundlekit import World, flip, parts
from tests.sitekit import REPO, Site

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.template(tmp_path_factory.mktemp("sites"))


@pytest.fixture
def world(template: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.chdir(tmp_path)  # receipts go to the working directory
    return template.copy(tmp_path)


def run(
    site: Site, capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0
) -> dict[str, Any]:
    capsys.readouterr()
    assert site.kgate("bundle", *arguments, "--json") == code, capsys.readouterr().err
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_two_laptops_and_a_disc(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    disc, back = str(world.disc), str(tmp_path / "back")
    small = ("--part-size", "256KiB")
    # The laptop with a network.
    dry = run(world.connected, capsys, "export", "-o", disc, *small, "--dry-run")
    assert not world.disc.exists()
    done = run(world.connected, capsys, "export", "-o", disc, *small)
    assert dry["parts"] == done["parts"] == [path.stat().st_size for path in parts(world.disc)]
    # The laptop without one.
    seen = run(world.island, capsys, "inspect", disc)
    assert seen["signature"]["counts"] is True
    assert [kernel["repo"] for kernel in seen["kernels"]] == [REPO]
    taken = run(world.island, capsys, "import", disc, "--receipt-dir", back)
    assert (taken["approved"], taken["denied"], taken["published"]) == (1, 0, True)
    files = run(world.island, capsys, "receipt", "--key", "-o", back)["files"]
    # Back at the first.
    world.connected.add_file("note.txt", b"new\n")
    world.connected.sync()
    options = ("--since", taken["receipt"], "--receiver-key", files[1])
    second = run(world.connected, capsys, "export", "-o", f"{disc}2", *options)
    assert second["bytes"] < done["bytes"] // 5
    assert run(world.island, capsys, "import", f"{disc}2")["approved"] == 2


def test_one_way_needs_no_receipt(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    first = run(world.connected, capsys, "export", "--one-way", "-o", f"{world.disc}1")
    second = run(world.connected, capsys, "export", "--one-way", "-o", f"{world.disc}2")
    assert second["bytes"] < first["bytes"] // 5
    assert second["base"]["sequence"] == first["sequence"]
    assert run(world.island, capsys, "import", f"{world.disc}2", code=1)["missing"]
    assert run(world.island, capsys, "import", f"{world.disc}1")["approved"] == 1
    assert run(world.island, capsys, "import", f"{world.disc}2")["approved"] == 1


def test_a_person_reads_which_part_is_bad_and_what_to_do(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.export()
    flip(parts(world.disc)[1], 200_000)
    capsys.readouterr()
    assert world.island.kgate("bundle", "import", str(world.disc)) == 1
    said = capsys.readouterr().out
    assert "part 2 of 6 is damaged" in said
    assert "nothing was published yet" in said
    assert "run this again" in said
    assert world.island.kgate("bundle", "inspect", str(world.disc)) == 0
    assert "part 2 of 6" in capsys.readouterr().out


def test_a_part_can_be_made_again(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world.export()
    before = parts(world.disc)[1].read_bytes()
    plan = next(world.disc.glob("*.json"))
    out = tmp_path / "again"
    found = run(world.connected, capsys, "again", str(plan), "--part", "2", "-o", str(out))
    assert parts(out)[0].read_bytes() == before
    assert found["files"] == [str(parts(out)[0])]


def test_sizes_are_read_with_their_units(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("export", "-o", str(world.disc), "--dry-run", "--part-size")
    for text in ("262144", "256KiB", "262144 B"):
        assert max(run(world.connected, capsys, *arguments, text)["parts"]) <= 256 * 1024
    assert world.connected.kgate("bundle", *arguments, "12 parsecs") == 2


def test_only_named_kernels_travel(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("export", "-o", str(world.disc), "--dry-run", "--only")
    assert run(world.connected, capsys, *arguments, "other/kernel")["kernels"] == []
    assert len(run(world.connected, capsys, *arguments, REPO)["kernels"]) == 1
