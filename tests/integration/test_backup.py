"""After a loss the same digests are served: backup and restore, and a catalog from the store."""

from __future__ import annotations

import itertools
import json
import shutil
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from sqlalchemy import create_engine, text

from kgate_core.tuf import Metadata
from kgate_mirror_server.catalog.sql import SqlCatalog
from kgate_mirror_server.upkeep.shelf import parse_shelved, shelved
from tests.services import postgresql
from tests.sitekit import CONNECTED, REPO, Site, built_kernels
from tests.unit.mirror.catalogcases import a_publication, a_variant

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kgate_mirror_server.ports import Publication

_numbers = itertools.count()


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgresql() as url:
        yield url


@pytest.fixture(scope="module")
def made(cache: Path) -> Site:
    """A site with two revisions, a hold and a token."""
    made = Site.found(cache / "site", CONNECTED, kernels=built_kernels(cache))
    assert made.kgate("sync") == 0
    made.add_file("more.py", b"MORE = 1\n")
    assert made.kgate("lock", "--upgrade", REPO) in {0, 1}
    assert made.kgate("sync") == 0
    assert made.kgate("hold", f"{REPO}@v1", "--reason", "case 7") == 0
    assert made.kgate("token", "create", "ci", "--repo", "acme/*") == 0
    assert len(made.publications()) == 2
    return made


@pytest.fixture
def site(tmp_path: Path, made: Site) -> Site:
    """A copy of it, for one test."""
    return Site(Path(shutil.copytree(made.folder, tmp_path / "site")))


def database(server: str) -> str:
    name = f"kgate{next(_numbers)}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    return server.replace("/postgres", f"/{name}")


def moved(site: Site, folder: Path) -> Site:
    """Return an empty place with nothing but the private keys, brought there by a person."""
    folder.mkdir()
    shutil.copytree(site.folder / "keys", folder / "keys")
    return Site(folder)


def timestamp_version(site: Site) -> int:
    data = (site.folder / "trust" / "timestamp.json").read_bytes()
    return Metadata.parse(data, "timestamp").version


def rows_of(site: Site) -> list[Publication]:
    return sorted(site.publications(), key=lambda item: str(item.served))


@contextmanager
def raw(site: Site) -> Iterator[Any]:
    engine = create_engine(f"sqlite:///{site.folder / 'kgate-data' / 'kgate.db'}")
    with engine.begin() as connection:
        yield connection
    engine.dispose()


@pytest.mark.parametrize("target", ["backup", "backup.tar"])
def test_after_a_restore_the_same_digests_are_served(
    site: Site, tmp_path: Path, target: str
) -> None:
    backup = tmp_path / target
    assert site.kgate("backup", str(backup), "--blobs") == 0
    before = rows_of(site)
    again = moved(site, tmp_path / "again")
    root = str(site.folder / "trust" / "root.json")
    assert again.kgate("restore", str(backup), "--root", root) == 0
    assert rows_of(again) == before
    assert again.kgate("verify", REPO) == 0
    assert again.kgate("audit", "verify") == 0
    mirror = again.mirror()
    try:
        assert [hold.reason for hold in mirror.keeping.holds()] == ["case 7"]
    finally:
        mirror.close()
    shutil.copytree(site.folder / "built", again.folder / "built")
    assert again.kgate("sync", "--locked") == 0
    assert rows_of(again) == before


def test_a_backup_goes_from_sqlite_to_postgresql_and_counts_on(
    site: Site, tmp_path: Path, server: str
) -> None:
    backup = tmp_path / "backup"
    assert site.kgate("backup", str(backup), "--blobs") == 0
    again = moved(site, tmp_path / "again")
    url = database(server)
    config = site.config.read_text(encoding="utf-8")
    config = config.replace("sqlite:///kgate-data/kgate.db", url)
    again.config.write_text(config, encoding="utf-8")
    assert again.kgate("restore", str(backup)) == 0
    assert rows_of(again) == rows_of(site)
    catalog = SqlCatalog(url)
    catalog.publish(a_publication())  # a counter that began anew would meet the ids of before
    catalog.close()
    third = moved(site, tmp_path / "third")
    assert again.kgate("backup", str(tmp_path / "back.tar"), "--blobs") == 1, "its blobs lack"
    catalog = SqlCatalog(url)
    catalog.retire(a_publication())
    catalog.close()
    assert again.kgate("backup", str(tmp_path / "back.tar"), "--blobs") == 0
    third.config.write_text(site.config.read_text(encoding="utf-8"), encoding="utf-8")
    assert third.kgate("restore", str(tmp_path / "back.tar")) == 0
    assert rows_of(third) == rows_of(site)


def test_a_backup_holds_no_private_key_and_no_password(site: Site, tmp_path: Path) -> None:
    assert site.kgate("backup", str(tmp_path / "backup")) == 0
    found = [path for path in (tmp_path / "backup").rglob("*") if path.is_file()]
    assert any(path.name.endswith(".pub.pem") for path in found)
    assert not [path for path in found if b"PRIVATE KEY" in path.read_bytes()]
    (site.folder / "policy" / "left-here.pem").write_bytes(
        (site.folder / "keys" / "admit.pem").read_bytes()
    )
    assert site.kgate("backup", str(tmp_path / "second")) == 4
    assert not (tmp_path / "second").exists()


def test_without_bytes_the_missing_ones_are_named(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert site.kgate("backup", str(tmp_path / "backup")) == 0
    again = moved(site, tmp_path / "again")
    capsys.readouterr()
    assert again.kgate("restore", str(tmp_path / "backup"), "--json") == 1
    assert json.loads(capsys.readouterr().out)["missing"]
    third = moved(site, tmp_path / "third")
    shutil.copytree(site.folder / "kgate-data" / "blobs", third.folder / "kgate-data" / "blobs")
    assert third.kgate("restore", str(tmp_path / "backup")) == 0
    assert third.kgate("verify", REPO) == 0


def test_t30_versions_never_go_back_after_a_restore(site: Site, tmp_path: Path) -> None:
    assert site.kgate("backup", str(tmp_path / "backup"), "--blobs") == 0
    # The old host signed on after the backup, and pods saw it.
    assert site.kgate("trust", "refresh") == 0
    seen = timestamp_version(site)
    again = moved(site, tmp_path / "again")
    assert again.kgate("restore", str(tmp_path / "backup")) == 0
    assert timestamp_version(again) > seen


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("catalog.jsonl", "is not what was written"),
        ("trust/publications.jsonl", "is not what was written"),
        ("site/policy/baseline.yaml", "is not what was written"),
    ],
)
def test_a_changed_backup_is_refused_before_anything_is_written(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, said: str
) -> None:
    assert site.kgate("backup", str(tmp_path / "backup"), "--blobs") == 0
    path = tmp_path / "backup" / name
    path.write_bytes(path.read_bytes().replace(b"e", b"E", 1))
    again = moved(site, tmp_path / "again")
    assert again.kgate("restore", str(tmp_path / "backup")) == 1
    assert said in capsys.readouterr().err
    assert [path.name for path in again.folder.iterdir()] == ["keys"]


def test_a_backup_with_another_seal_root_or_file_is_refused(
    site: Site, tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert site.kgate("backup", str(tmp_path / "backup")) == 0
    other = Site.found(tmp_path / "other", CONNECTED, kernels=built_kernels(cache))
    again = moved(site, tmp_path / "again")
    assert again.kgate("restore", str(tmp_path / "backup"), "--root", str(other.root)) == 4
    assert "another root" in capsys.readouterr().err
    (tmp_path / "backup" / "extra").write_bytes(b"x")
    assert again.kgate("restore", str(tmp_path / "backup")) == 1
    assert "not listed" in capsys.readouterr().err
    (tmp_path / "backup" / "extra").unlink()
    seal = tmp_path / "backup" / "backup.json"
    seal.write_text(seal.read_text("utf-8").replace('"withBlobs": false', '"withBlobs": true'))
    assert again.kgate("restore", str(tmp_path / "backup")) == 4
    assert "not the one that was signed" in capsys.readouterr().err


def test_a_place_that_is_not_empty_is_refused(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert site.kgate("backup", str(tmp_path / "backup")) == 0
    assert site.kgate("restore", str(tmp_path / "backup")) == 1
    assert "not empty" in capsys.readouterr().err
    shutil.rmtree(site.folder / "trust")
    assert site.kgate("restore", str(tmp_path / "backup")) == 1
    assert "database is not empty" in capsys.readouterr().err


def test_an_existing_backup_is_not_overwritten(site: Site, tmp_path: Path) -> None:
    assert site.kgate("backup", str(tmp_path / "backup")) == 0
    assert site.kgate("backup", str(tmp_path / "backup")) == 1


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
def test_an_empty_catalog_is_filled_from_the_store_and_serves_the_same_digests(
    site: Site, request: pytest.FixtureRequest, engine: str
) -> None:
    before = rows_of(site)
    for path in (site.folder / "kgate-data").glob("kgate.db*"):
        path.unlink()
    if engine == "postgresql":
        config = site.config.read_text(encoding="utf-8")
        url = database(request.getfixturevalue("server"))
        site.config.write_text(
            config.replace("sqlite:///kgate-data/kgate.db", url), encoding="utf-8"
        )
    assert site.kgate("verify", REPO) == 1
    store = str(site.folder / "kgate-data")
    assert site.kgate("rebuild", "--from", store) == 0
    assert rows_of(site) == before
    assert site.kgate("verify", REPO) == 0
    assert site.kgate("sync", "--locked") == 0
    assert rows_of(site) == before
    assert site.kgate("rebuild", "--from", store) == 0
    assert rows_of(site) == before


def test_a_record_that_somebody_put_into_the_store_publishes_nothing(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    (current,) = (item for item in site.publications() if item.version == 1)
    (older,) = (item for item in site.publications() if item.version is None)
    mirror = site.mirror()
    forged = [
        a_publication(),
        a_publication(repo=current.repo, served=current.served, upstream=current.upstream,
                      variants=(a_variant(),)),
    ]  # fmt: skip
    for item in forged:
        digest, data = shelved(item)
        mirror.store.put(digest, len(data), [data])
    # Rolled back: the older revision claims to be what v1 means.
    digest, data = shelved(replace(older, version=1))
    mirror.store.put(digest, len(data), [data])
    mirror.close()
    before = rows_of(site)
    for path in (site.folder / "kgate-data").glob("kgate.db*"):
        path.unlink()
    assert site.kgate("rebuild", "--from", str(site.folder / "kgate-data")) == 0
    assert rows_of(site) == before


def test_what_the_store_lost_is_named(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    (older,) = (item for item in site.publications() if item.version is None)
    lost = older.variants[0].bundles[0]
    for path in (site.folder / "kgate-data").glob("kgate.db*"):
        path.unlink()
    (site.folder / "kgate-data/blobs/sha256" / lost.hex[:2] / lost.hex).unlink()
    assert site.kgate("rebuild", "--from", str(site.folder / "kgate-data")) == 1
    assert f"left out: {REPO}@{str(older.served)[:12]}" in capsys.readouterr().out
    assert len(site.publications()) == 1


def test_a_record_comes_back_as_it_was() -> None:
    for item in (a_publication(), a_publication(version=None)):
        assert parse_shelved(shelved(item)[1]) == item


def test_t16_a_row_without_evidence_is_no_publication(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    with raw(site) as connection:
        connection.execute(text("UPDATE publication SET lane = 'production'"))
        connection.execute(text("UPDATE branch SET lane = 'production'"))
        connection.execute(text("UPDATE meta SET generation = generation + 1"))
    assert site.kgate("verify", REPO) == 1
    assert "lane" in capsys.readouterr().out
