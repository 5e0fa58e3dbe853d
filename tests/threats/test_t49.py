"""T49: one name, several places: origin and repository type are part of what a kernel is."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from kgate_cli.main import main
from kgate_core.errors import Conflict, InvalidInput, NotFound
from kgate_mirror_server.examples import default_cache
from kgate_mirror_server.examples.build import build_gelu_and_mul
from kgate_mirror_server.hubsim import HubSimulator
from kgate_mirror_server.ingest.resolve import read_lock, require_lock
from kgate_mirror_server.settings.site import load_config
from tests.ingestkit import make_site
from tests.repos import copy_repo

if TYPE_CHECKING:
    from pathlib import Path

    from tests.ingestkit import Site

REPO = "kernels-community/gelu-and-mul"
PIN = f"repo: {REPO}, version: 1"


@pytest.fixture(scope="module")
def plain() -> Path:
    return build_gelu_and_mul(default_cache(os.environ), native=False, cuda=False)


def swap_upstream(site: Site, old: str, new: str) -> None:
    text = site.config_path.read_text(encoding="utf-8")
    assert f"upstream: {old}" in text
    site.config_path.write_text(text.replace(f"upstream: {old}", f"upstream: {new}", 1), "utf-8")


def trust(site: Site) -> int:
    return main(["trust", "update", "--config", str(site.config_path)])


@pytest.mark.parametrize("second", ["hub", "folder"])
def test_t49_the_same_name_from_a_second_upstream_or_a_folder_is_refused(
    plain: Path, tmp_path: Path, second: str
) -> None:
    with HubSimulator() as first, HubSimulator() as other:
        first.publish(REPO, plain)
        other.publish(REPO, plain)
        site = make_site(tmp_path / "site", first.url)
        copy_repo(plain, site.folder / "built" / REPO)
        site.pin(PIN)
        assert site.sync().approved == 1
        swap_upstream(site, first.url, other.url if second == "hub" else "./built")
        # 1. The lock is of another upstream.
        with site.mirror() as mirror, pytest.raises(Conflict, match="out of date"):
            require_lock(read_lock(site.folder), mirror.config)
        # 2. Pods do not believe the new origin until the root key says so.
        assert main(["sync", "--config", str(site.config_path)]) == 4
        assert trust(site) == 0
        # 3. Even then one name means one upstream in a lane.
        result = site.sync()
        assert [item.error.code for item in result.failures] == ["conflict"]
        assert f"comes from {first.url}" in result.failures[0].error.message
        with site.mirror() as mirror:
            assert {item.origin for item in mirror.catalog.publications()} == {first.url}


def test_t49_one_name_from_two_upstreams_in_one_lane_is_no_configuration(tmp_path: Path) -> None:
    site = make_site(tmp_path / "site", "https://hub.test")
    with site.config_path.open("a", encoding="utf-8") as file:
        file.write("upstreams: {own: https://own.test}\n")
    site.pin(PIN, f"repo: {REPO}, version: 2, upstream: own")
    with pytest.raises(InvalidInput, match="one name means one upstream in a lane"):
        load_config(site.config_path)


def test_t49_two_folders_of_one_name_are_not_one_origin(tmp_path: Path) -> None:
    site = make_site(tmp_path / "site", "./built")
    with site.config_path.open("a", encoding="utf-8") as file:
        file.write("upstreams: {other: ./elsewhere/built}\n")
    with pytest.raises(InvalidInput, match="same identity dir:built"):
        load_config(site.config_path)


def test_t49_a_model_repository_of_the_same_name_is_no_kernel(plain: Path, tmp_path: Path) -> None:
    with HubSimulator() as hub:
        hub.publish(REPO, plain)
        site = make_site(tmp_path / "site", hub.url)
        site.pin(PIN)
        site.lock()
        assert not hub.count("/api/models/*")
        # A lock that calls it a model covers no pin of a kernel.
        path = site.folder / "kgate.lock"
        text = path.read_text(encoding="utf-8").replace('"type": "kernel"', '"type": "model"')
        path.write_text(text, encoding="utf-8")
        with site.mirror() as mirror, pytest.raises(Conflict, match="out of date"):
            require_lock(read_lock(site.folder), mirror.config)
        path.unlink()
        hub.take_down(REPO)
        with pytest.raises(NotFound, match="no such kernel repository"):
            site.lock()
        shutil.rmtree(site.folder)
