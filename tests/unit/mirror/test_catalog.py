from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kgate_core.errors import InvalidInput, KgateError, UpstreamError
from kgate_mirror_server.catalog.sql import SqlCatalog
from tests.unit.mirror.catalogcases import CatalogCases, a_denial, a_publication
from tests.unit.mirror.keepingcases import KeepingCases

if TYPE_CHECKING:
    from pathlib import Path


class TestSqlite(CatalogCases, KeepingCases):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path / 'folder' / 'kgate.db'}"

    @pytest.fixture
    def raw(self, url: str) -> str:
        return url

    def test_a_killed_writer_leaves_a_usable_database(self, url: str) -> None:
        first = SqlCatalog(url)
        first.publish(a_publication())
        connection = first._engine.raw_connection()
        connection.cursor().execute("BEGIN IMMEDIATE")
        connection.cursor().execute("DELETE FROM publication")
        connection.invalidate()  # the process is gone; its transaction with it
        assert SqlCatalog(url).publications() == (a_publication(),)

    def test_journal_and_foreign_keys_are_set_up(self, url: str) -> None:
        with SqlCatalog(url)._engine.connect() as connection:
            pragmas = {
                name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
            }
        assert pragmas == {
            "journal_mode": "wal",
            "synchronous": 1,
            "foreign_keys": 1,
            "busy_timeout": 5000,
        }


def test_a_catalog_in_memory_serves_one_process() -> None:
    catalog = SqlCatalog("sqlite://")
    catalog.publish(a_publication())
    catalog.deny(a_denial())
    assert catalog.publications() == (a_publication(),)
    assert catalog.generation() == 2
    catalog.close()


@pytest.mark.parametrize("url", ["", "nonsense", "mysql://host/db", "sqlite+nodriver:///x"])
def test_other_databases_are_refused(url: str) -> None:
    with pytest.raises(InvalidInput):
        SqlCatalog(url)


def test_a_file_that_is_no_database_is_reported(tmp_path: Path) -> None:
    (tmp_path / "kgate.db").write_bytes(b"not a database, but a text file" * 100)
    with pytest.raises(UpstreamError, match="cannot be opened") as caught:
        SqlCatalog(f"sqlite:///{tmp_path / 'kgate.db'}")
    assert caught.value.hint


def test_a_folder_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(KgateError, match="cannot be created"):
        SqlCatalog(f"sqlite:///{tmp_path / 'file' / 'kgate.db'}")


def test_a_server_that_is_down_is_reported_without_its_password() -> None:
    with pytest.raises(UpstreamError) as caught:
        SqlCatalog("postgresql://kgate:secret@127.0.0.1:1/kgate")
    assert "secret" not in caught.value.message + caught.value.hint


def test_a_database_that_disappears_is_reported(tmp_path: Path) -> None:
    catalog = SqlCatalog(f"sqlite:///{tmp_path / 'kgate.db'}")
    with catalog._engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE meta")
    with pytest.raises(UpstreamError, match="cannot be read"):
        catalog.generation()
