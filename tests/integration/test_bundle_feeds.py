"""Advisories over the gap: they travel with the kernels and count only where somebody vouches."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from kgate_mirror_server.feeds.storage import read_snapshot
from kgate_mirror_server.feeds.taking import take_feed
from kgate_mirror_server.ports import EvidenceKind
from kgate_scanner.advisories.collecting import collect
from tests.bundlekit import World
from tests.feedkit import osv, write_folder
from tests.sitekit import REPO, Site, time_now

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.template(tmp_path_factory.mktemp("sites"))


@pytest.fixture
def world(template: World, tmp_path: Path) -> World:
    return template.copy(tmp_path)


def record(severity: str = "LOW", name: str = "KGATE-2026-0001") -> dict[str, Any]:
    affected = {
        "package": {"ecosystem": "kgate", "name": REPO},
        "ranges": [{"type": "GIT", "events": [{"introduced": "0"}]}],
    }
    return osv(name, affected=[affected], database_specific={"severity": severity})


def sign(world: World, folder: Path, *documents: dict[str, Any]) -> None:
    """Publish a signed feed at the connected site and take it in there."""
    key = world.connected.folder / "keys" / "feed.pem"
    if not key.exists():
        assert world.connected.kgate("keys", "generate", "feed", "--no-passphrase") == 0
    write_folder(folder, {f"{n}.json": item for n, item in enumerate(documents)})
    target = folder.parent / "feed.json"
    assert world.connected.kgate("feed", "sign", str(folder), str(target), "--name", "ours") == 0
    assert world.connected.kgate("feed", "import", str(target)) == 0


def names(site: Site) -> dict[str, int]:
    mirror = site.mirror()
    snapshot = read_snapshot(mirror.config.path(mirror.config.feeds.snapshot))
    mirror.close()
    return {item.name: item.sequence for item in snapshot.sources}


def test_a_feed_of_the_senders_key_is_taken_in_and_asked_about_what_came_with_it(
    world: World, tmp_path: Path
) -> None:
    sign(world, tmp_path / "a", record())
    world.export()

    done = world.bring()

    assert done.feeds.taken == ("ours",)
    assert done.result.approved == 1
    (publication,) = world.island.publications()
    assert EvidenceKind.VULNERABILITIES in publication.variants[0].evidence


def test_what_advisories_forbid_is_refused_on_the_island_too(world: World, tmp_path: Path) -> None:
    world.export()  # before the news
    sign(world, tmp_path / "a", record("CRITICAL"))
    world.export(tmp_path / "later")

    assert world.bring().result.approved == 1
    done = world.bring(tmp_path / "later")
    assert done.feeds.taken == ("ours",)
    assert (done.result.approved, done.result.denied) == (0, 1)


def test_t52_an_older_feed_in_a_bundle_is_left_behind(world: World, tmp_path: Path) -> None:
    sign(world, tmp_path / "a", record())
    old = (tmp_path / "feed.json").read_bytes()
    sign(world, tmp_path / "b", record(), record(name="KGATE-2026-0002"))
    world.export()
    world.bring()
    assert names(world.island) == {"ours": 2}

    snapshot = world.connected.folder / "kgate-data" / "feeds" / "snapshot.json"
    snapshot.unlink()
    (tmp_path / "old.json").write_bytes(old)
    assert world.connected.kgate("feed", "import", str(tmp_path / "old.json")) == 0
    world.export(tmp_path / "later")
    done = world.bring(tmp_path / "later")

    assert done.feeds.taken == ()
    assert "was taken before" in done.feeds.left[0][1]
    assert names(world.island) == {"ours": 2}


def test_t52_what_one_site_accepted_unsigned_counts_on_the_other_only_by_its_own_pin(
    world: World, tmp_path: Path
) -> None:
    folder = write_folder(tmp_path / "vendor", {"a.json": record()})
    mirror = world.connected.mirror()
    taken = take_feed(mirror, collect(folder), time_now(), name="vendor", reason="by hand")
    mirror.close()
    world.export()

    done = world.bring()
    assert done.feeds.taken == ()
    assert "nothing vouches for feed vendor" in done.feeds.left[0][1]
    assert names(world.island) == {}

    with world.island.config.open("a") as stream:
        stream.write(f"\nfeeds:\n  pins:\n    vendor: {taken.source.digest}\n")
    assert world.bring().feeds.taken == ("vendor",)
    assert names(world.island) == {"vendor": 0}


def test_the_command_says_what_became_of_the_feeds(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sign(world, tmp_path / "a", record())
    world.export()
    capsys.readouterr()

    receipts = str(tmp_path / "back")
    command = ("bundle", "import", str(world.disc), "--receipt-dir", receipts)
    assert world.island.kgate(*command, "--json") == 0
    assert json.loads(capsys.readouterr().out)["feeds"] == {"taken": ["ours"], "left": []}
