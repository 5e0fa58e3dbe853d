from __future__ import annotations

from pathlib import Path

import pytest

from kgate_client.asked import Asked
from kgate_client.place import Mismatch, Place, expect
from kgate_core.kernel import KernelRef, Revision
from kgate_core.verify import Expected

COMMIT = "a" * 40
FOLDER = Path("/cache/kernels--acme--relu")
VARIANT = FOLDER / "snapshots" / COMMIT / "build" / "torch-cpu"
RELU = KernelRef("acme", "relu")


def test_a_place_in_a_hub_cache_names_its_kernel() -> None:
    assert Place.of(VARIANT) == Place(VARIANT, FOLDER, RELU, Revision(COMMIT))
    assert Place.of(VARIANT).variant == "torch-cpu"


@pytest.mark.parametrize(
    "path",
    [
        "/home/u/relu/build/torch-cpu",
        "/cache/kernels--acme--relu/snapshots/main/build/torch-cpu",
        "/cache/datasets--acme--relu/snapshots/" + COMMIT + "/build/torch-cpu",
        "/cache/kernels--acme--.relu/snapshots/" + COMMIT + "/build/torch-cpu",
        "/torch-cpu",
    ],
)
def test_other_places_name_nothing(path: str) -> None:
    assert Place.of(Path(path)) == Place(Path(path), None, None, None)


def test_a_cache_of_older_clients_is_read_too() -> None:
    path = Path(str(VARIANT).replace("kernels--", "models--"))

    assert Place.of(path).repo == RELU


@pytest.mark.parametrize(
    ("pin", "version"), [("v3", 3), ("v12", 12), ("main", None), (COMMIT, None), (None, None)]
)
def test_a_version_is_a_pin_with_a_number(pin: str | None, version: int | None) -> None:
    assert Asked("acme/relu", pin).version == version


def test_a_request_reads_as_people_write_it() -> None:
    assert str(Asked("acme/relu", "v1")) == "acme/relu@v1"
    assert str(Asked("acme/relu")) == "acme/relu"
    assert str(Asked()) == "a kernel"


@pytest.mark.parametrize(
    ("asked", "repo", "revision"),
    [
        (Asked(), RELU, Revision(COMMIT)),
        (Asked("acme/relu", "v1"), RELU, Revision(COMMIT)),
        (Asked("acme/relu", COMMIT), RELU, Revision(COMMIT)),
        (Asked("acme/relu", "main"), RELU, Revision(COMMIT)),
        (Asked(str(VARIANT.parents[1]), "v0"), RELU, Revision(COMMIT)),
        (Asked(str(VARIANT), "v0"), RELU, Revision(COMMIT)),
    ],
)
def test_request_and_place_say_together_what_a_statement_must_say(
    asked: Asked, repo: KernelRef, revision: Revision
) -> None:
    expected = expect(asked, Place.of(VARIANT), "experimental")

    assert expected == Expected("torch-cpu", "experimental", repo, revision)


def test_a_plain_directory_leaves_open_what_it_cannot_know() -> None:
    plain = Place.of(Path("/srv/relu/build/torch-cpu"))

    assert expect(Asked("acme/relu", "v1"), plain, "l") == Expected("torch-cpu", "l", RELU)
    assert expect(Asked("acme/relu", COMMIT), plain, "l").revision == Revision(COMMIT)
    assert expect(Asked("relu", "v0"), Place.of(Path("relu/build/torch-cpu")), "l").repo is None


@pytest.mark.parametrize(
    "asked",
    [
        Asked("acme/other", "v1"),
        Asked("acme/relu", "b" * 40),
        Asked("/somewhere/else", "v0"),
        Asked("no name at all", "v1"),
    ],
)
def test_a_contradiction_between_request_and_place_is_one(asked: Asked) -> None:
    with pytest.raises(Mismatch):
        expect(asked, Place.of(VARIANT), "experimental")
