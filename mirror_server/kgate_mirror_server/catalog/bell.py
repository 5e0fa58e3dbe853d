"""Waits for a change of the catalog: told by PostgreSQL, else until the time is over.

`rows.advance` notifies in its transaction, so a waiter hears of a change when it is committed. It
is a hint: whoever waits looks at the generation anyway, and a lost connection costs no more than
the time between two looks.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Final

import psycopg
from sqlalchemy import make_url

from kgate_mirror_server.catalog.rows import CHANNEL

CONNECT_TIMEOUT: Final = 5  # seconds


class Bell:
    """One waiter; a connection of its own where the database can ring."""

    def __init__(self, url: str) -> None:
        parsed = make_url(url)
        rings = parsed.get_backend_name() == "postgresql"
        self._url = parsed.set(drivername="postgresql") if rings else None
        self._connection: psycopg.Connection | None = None
        self._over = threading.Event()

    def wait(self, seconds: float) -> bool:
        """Return True as soon as something changed, False after so many seconds."""
        if self._url is None:
            self._over.wait(seconds)
            return False
        try:
            for _ in self._listening().notifies(timeout=seconds, stop_after=1):
                return True
        except (psycopg.Error, OSError):
            self._hang_up()
            self._over.wait(seconds)
        return False

    def close(self) -> None:
        """Stop waiting."""
        self._over.set()
        self._hang_up()

    def _listening(self) -> psycopg.Connection:
        if self._connection is None or self._connection.closed:
            text = "" if self._url is None else self._url.render_as_string(hide_password=False)
            self._connection = psycopg.connect(
                text, autocommit=True, connect_timeout=CONNECT_TIMEOUT
            )
            self._connection.execute(f"LISTEN {CHANNEL}".encode("ascii"))
        return self._connection

    def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(psycopg.Error):
                connection.close()
