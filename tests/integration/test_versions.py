"""Versions as a pod sees them: no advice to change to nothing, and again without a network."""

from __future__ import annotations

import re
import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

from kgate_client import hook, versions
from kgate_client.place import Place
from kgate_client.wrappers import without_empty_versions
from kgate_mirror_server.serve.access import SHIM_MARK
from kgate_mirror_server.serve.lookup import EMPTY_COMMIT

if TYPE_CHECKING:
    from pathlib import Path

COMMIT = "a" * 40
MARKED = re.compile(r"origin/kgate-client")


def place(cache: Path, commit: str = COMMIT) -> Place:
    variant = cache / "kernels--acme--relu" / "snapshots" / commit / "build" / "torch-cpu"
    variant.mkdir(parents=True)
    return Place.of(variant)


def test_shim_and_mirror_mean_the_same_nothing() -> None:
    assert versions.NOTHING == EMPTY_COMMIT


def test_shim_and_mirror_mean_the_same_mark() -> None:
    assert hook.MARK == SHIM_MARK


def test_t55_requests_beside_the_shim_bear_the_mark_and_children_do_not_inherit_it() -> None:
    program = (
        "import os, kernels.hf_hub\n"
        "from huggingface_hub.utils import build_hf_headers\n"
        "print(build_hf_headers()['user-agent'])\n"
        "print('HF_HUB_USER_AGENT_ORIGIN' in os.environ)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True
    )
    agent, inherited = done.stdout.splitlines()
    assert MARKED.search(agent), agent
    assert inherited == "False"


def test_versions_that_hold_nothing_are_left_out_beside_real_ones() -> None:
    real, empty = (SimpleNamespace(target_commit=c) for c in (COMMIT, EMPTY_COMMIT))
    assert without_empty_versions(lambda: {1: real, 2: empty})() == {1: real}


def test_a_repository_of_nothing_keeps_its_versions_so_that_no_build_is_found() -> None:
    empty = SimpleNamespace(target_commit=EMPTY_COMMIT)
    assert without_empty_versions(lambda: {1: empty})() == {1: empty}


def test_a_verified_version_is_found_again_offline(tmp_path: Path) -> None:
    versions.note("acme/relu", 3, COMMIT)
    versions.keep(place(tmp_path))
    assert (tmp_path / "kernels--acme--relu" / "refs" / "v3").read_text() == COMMIT


def test_a_version_that_moved_is_written_anew(tmp_path: Path) -> None:
    first, second = place(tmp_path), place(tmp_path, "b" * 40)
    versions.note("acme/relu", 4, COMMIT)
    versions.keep(first)
    versions.note("acme/relu", 4, "b" * 40)
    versions.keep(second)
    assert (tmp_path / "kernels--acme--relu" / "refs" / "v4").read_text() == "b" * 40


def test_a_place_outside_a_hub_cache_is_left_alone(tmp_path: Path) -> None:
    versions.keep(Place.of(tmp_path))
    assert list(tmp_path.iterdir()) == []
