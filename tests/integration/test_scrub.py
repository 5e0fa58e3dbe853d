"""T15 by `kgate scrub`: bit rot found, withdrawn, repaired from upstream or reported."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from kgate_core.digest import Digest
from tests.sitekit import CONNECTED, REPO, Site, built_kernels


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def made(cache: Path) -> Site:
    found = Site.found(cache / "site", CONNECTED, kernels=built_kernels(cache))
    found.sync()
    return found


@pytest.fixture
def site(tmp_path: Path, made: Site) -> Site:
    """A copy of a site that serves one kernel."""
    return Site(Path(shutil.copytree(made.folder, tmp_path / "site")))


def place(site: Site, digest: Digest) -> Path:
    return site.folder / "kgate-data" / "blobs" / "sha256" / digest.hex[:2] / digest.hex


def rot(site: Site, digest: Digest) -> None:
    """Flip one bit on the disk, with the file's times as they were."""
    path = place(site, digest)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    path.chmod(0o444)


def run(site: Site, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
    capsys.readouterr()
    code = site.kgate("scrub", "--json", *arguments)
    return code, json.loads(capsys.readouterr().out)


def test_a_sound_store_needs_no_care(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = run(site, capsys)
    assert (code, said["troubles"]) == (0, [])
    assert said["read"] > 5


def test_t15_a_rotten_file_is_found_set_aside_and_fetched_again(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    (publication,) = site.publications()
    digest = publication.variants[0].files[0].digest
    rot(site, digest)
    code, said = run(site, capsys)
    assert code == 1
    (trouble,) = said["troubles"]
    assert (trouble["digest"], trouble["what"]) == (str(digest), "damaged")
    assert REPO in trouble["needed_by"][0]
    assert Digest.of(place(site, digest).read_bytes()) != digest, "only --repair changes anything"
    code, said = run(site, capsys, "--repair")
    assert code == 0
    assert said["troubles"][0]["repaired"]
    assert Digest.of(place(site, digest).read_bytes()) == digest
    assert (site.folder / "kgate-data" / "damaged" / digest.hex).exists()
    assert site.kgate("verify", REPO) == 0


def test_t15_what_upstream_has_no_more_is_withdrawn_and_reported(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    (publication,) = site.publications()
    file = next(f for f in publication.variants[0].files if f.path.endswith("__init__.py"))
    rot(site, file.digest)
    (site.variant / "__init__.py").unlink()
    code, said = run(site, capsys, "--repair")
    assert code == 1
    (trouble,) = said["troubles"]
    assert trouble["reason"]
    assert not place(site, file.digest).exists()
    assert site.kgate("verify", REPO) == 1


def test_a_missing_blob_comes_back_and_a_manifest_is_made_again(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    (publication,) = site.publications()
    item = publication.variants[0]
    place(site, item.files[0].digest).unlink()
    rot(site, item.manifest)
    code, said = run(site, capsys, "--repair")
    assert code == 0, said
    assert {trouble["what"] for trouble in said["troubles"]} == {"missing", "damaged"}
    assert site.kgate("verify", REPO) == 0


def test_a_rotten_signature_is_withdrawn_until_a_backup_brings_it(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    (publication,) = site.publications()
    rot(site, publication.variants[0].bundles[0])
    code, said = run(site, capsys, "--repair")
    assert code == 1
    assert "backup" in said["troubles"][0]["reason"]
