from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.services import postgresql
from tests.unit.mirror.catalogcases import CatalogCases
from tests.unit.mirror.keepingcases import KeepingCases

if TYPE_CHECKING:
    from collections.abc import Iterator

_numbers = itertools.count()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgresql() as url:
        yield url


class TestPostgresql(CatalogCases, KeepingCases):
    @pytest.fixture
    def url(self, server: str) -> str:
        name = f"kgate{next(_numbers)}"
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return server.replace("/postgres", f"/{name}")

    @pytest.fixture
    def raw(self, url: str) -> str:
        return url.replace("postgresql://", "postgresql+psycopg://")
