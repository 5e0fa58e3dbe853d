"""A catalog that is opened when it is first asked, and again until that succeeds.

For servers: they start while the database is down. Whoever writes opens `sql.SqlCatalog` directly.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from kgate_core.errors import UpstreamError
from kgate_mirror_server.catalog.engine import is_missing
from kgate_mirror_server.catalog.sql import SqlCatalog

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Engine

    from kgate_mirror_server.ports import Denial, Publication


class LazyCatalog:
    """The reading half of a Catalog; every question raises UpstreamError while it is down."""

    def __init__(self, url: str, may_create: Callable[[], bool]) -> None:
        """Open nothing yet; `may_create` says whether a database file that is gone was never there.

        A database that vanished must not come back as an empty one.
        """
        self._url = url
        self._may_create = may_create
        self._opened: SqlCatalog | None = None
        self._lock = threading.Lock()

    @property
    def engine(self) -> Engine:
        """The opened database."""
        return self._open().engine

    def publications(self) -> Sequence[Publication]:
        """Return all publications."""
        return self._open().publications()

    def denials(self) -> Sequence[Denial]:
        """Return all denials that stand."""
        return self._open().denials()

    def generation(self) -> int:
        """Return a number that grows with every change."""
        return self._open().generation()

    def close(self) -> None:
        """Give all connections back."""
        with self._lock:
            if self._opened is not None:
                self._opened.close()
                self._opened = None

    def _open(self) -> SqlCatalog:
        with self._lock:
            if is_missing(self._url) and not self._may_create():
                raise UpstreamError(
                    "the catalog's file is gone",
                    hint="restore it from the backup; what was served goes on being served",
                )
            if self._opened is None:
                self._opened = SqlCatalog(self._url)
            return self._opened
