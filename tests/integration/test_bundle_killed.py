"""T34 at the island: `kill -9` while a bundle comes in, and a collection between its parts."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import pytest

from tests.bundlekit import World, parts
from tests.sitekit import REPO

if TYPE_CHECKING:
    from pathlib import Path

# Takes a bundle in as the command does, and dies at the n-th rename of a blob to its place.
KILLED: Final = """
import os, signal, sys
from pathlib import Path
from kgate_cli.main import main
left = int(sys.argv[1])
real = Path.replace
def replace(self, target):
    global left
    done = real(self, target)
    if "/blobs/sha256/" in str(target):
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
    return done
Path.replace = replace
sys.exit(main(["bundle", "import", sys.argv[2], "--config", sys.argv[3]]))
"""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World.template(tmp_path_factory.mktemp("world"))
    world.export()
    return world


@pytest.fixture
def world(template: World, tmp_path: Path) -> World:
    made = template.copy(tmp_path)
    shutil.copytree(template.disc, made.disc)
    return made


@pytest.mark.parametrize("after", [1, 4, 12])
def test_t34_an_import_killed_in_the_middle_publishes_nothing_half_and_is_taken_up(
    world: World, after: int
) -> None:
    config = str(world.island.config)
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(after), str(world.disc), config],
        capture_output=True, check=False, timeout=120,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert world.island.publications() == []
    assert world.island.kgate("bundle", "import", str(world.disc)) == 0
    assert world.island.manifests() == world.connected.manifests()
    assert world.island.kgate("verify", REPO) == 0
    assert world.island.kgate("scrub") == 0


def test_a_collection_between_two_parts_takes_nothing_away(world: World) -> None:
    last = parts(world.disc)[-1]
    away = world.disc.parent / last.name
    last.rename(away)
    assert world.island.kgate("bundle", "import", str(world.disc)) == 1
    folder = world.island.folder / "kgate-data" / "blobs"
    before = sorted(path.name for path in folder.rglob("*") if path.is_file())
    assert before
    assert world.island.kgate("gc") == 0
    assert sorted(path.name for path in folder.rglob("*") if path.is_file()) == before
    away.rename(last)
    assert world.island.kgate("bundle", "import", str(world.disc)) == 0
    assert world.island.kgate("verify", REPO) == 0
