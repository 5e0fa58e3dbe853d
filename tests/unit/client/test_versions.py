from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kgate_client import versions
from kgate_client.place import Place

if TYPE_CHECKING:
    from pathlib import Path

COMMIT = "a" * 40


@pytest.fixture(autouse=True)
def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "_meant", {})


def test_a_version_that_was_verified_is_found_again_offline(tmp_path: Path) -> None:
    folder = tmp_path / "kernels--acme--relu"
    variant = folder / "snapshots" / COMMIT / "build" / "torch-cpu"
    variant.mkdir(parents=True)
    versions.note("acme/relu", 2, COMMIT)

    versions.keep(Place.of(variant))
    versions.keep(Place.of(variant))

    assert {path.name: path.read_text() for path in (folder / "refs").iterdir()} == {"v2": COMMIT}


def test_other_places_and_other_kernels_get_no_refs(tmp_path: Path) -> None:
    versions.note("acme/other", 2, COMMIT)
    variant = tmp_path / "kernels--acme--relu" / "snapshots" / COMMIT / "build" / "torch-cpu"
    variant.mkdir(parents=True)

    versions.keep(Place.of(variant))
    versions.keep(Place.of(tmp_path))

    assert not (tmp_path / "kernels--acme--relu" / "refs").exists()


def test_a_cache_that_cannot_be_written_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "kernels--acme--relu"
    variant = folder / "snapshots" / COMMIT / "build" / "torch-cpu"
    variant.mkdir(parents=True)
    (folder / "refs").write_text("in the way")
    versions.note("acme/relu", 1, COMMIT)

    versions.keep(Place.of(variant))

    assert (folder / "refs").read_text() == "in the way"
