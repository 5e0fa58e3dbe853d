"""Who does what: a claim is held by one process or thread at a time, whatever the machine.

On PostgreSQL claims are advisory locks of a session, else locks on files beside the database. Both
end with the process that holds them, even by kill -9, and so need no lease to run out. A claim
spares work; it guards no data: the catalog refuses contradictions by itself. Sessions must be kept,
so that a pooler between here and PostgreSQL has to pool sessions, not transactions.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, Protocol

import psycopg
from sqlalchemy import make_url

from kgate_core.errors import Conflict, KgateError, UpstreamError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

CONNECT_TIMEOUT: Final = 5  # seconds
_STRIPES: Final = 256  # lock files of a kind
_STEP: Final = 0.1  # seconds between two attempts to be alone


class Shared(Protocol):
    """A place among many that use one thing."""

    def alone(self, wait: float) -> AbstractContextManager[None]:
        """Be the only one meanwhile; raises Conflict after `wait` seconds."""
        ...

    def close(self) -> None:
        """Leave."""
        ...


class Claims(Protocol):
    """Gives out claims by name, `kind:what`; one thread may hold one claim of a kind."""

    def hold(self, what: str) -> AbstractContextManager[None]:
        """Wait until nobody else holds it, and hold it."""
        ...

    def share(self, what: str) -> Shared:
        """Use something together with others, until closed."""
        ...

    def close(self) -> None:
        """Give back what is open."""
        ...


def open_claims(url: str, folder: Path) -> Claims:
    """Return the claims of a catalog; `folder` is where files go that a database cannot hold."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "postgresql":
        plain = parsed.set(drivername="postgresql")
        return SessionClaims(plain.render_as_string(hide_password=False))
    return FileClaims(folder)


class FileClaims:
    """Claims among the processes of one machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def hold(self, what: str) -> Iterator[None]:
        """Wait and hold; two names may share a file, so that one waits in vain at worst."""
        kind = what.partition(":")[0]
        stripe = hashlib.sha256(what.encode()).digest()[0] % _STRIPES
        descriptor = self._open(f"{kind}-{stripe:02x}")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def share(self, what: str) -> Shared:
        """Use something together with others."""
        return _SharedFile(self._open(what), what)

    def close(self) -> None:
        """Nothing stays open between claims."""

    def _open(self, name: str) -> int:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            return os.open(self._folder / name, flags, 0o600)
        except OSError as exc:
            raise KgateError(
                f"{self._folder}: locks cannot be kept there ({exc.strerror})",
                hint="this user needs to write beside the database",
            ) from exc


class _SharedFile:
    def __init__(self, descriptor: int, what: str) -> None:
        self._descriptor: int | None = descriptor
        self._what = what
        fcntl.flock(descriptor, fcntl.LOCK_SH)

    @contextmanager
    def alone(self, wait: float) -> Iterator[None]:
        descriptor = self._descriptor
        if descriptor is None:
            raise AssertionError("closed")
        until = time.monotonic() + wait
        while True:
            with suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            if time.monotonic() >= until:
                fcntl.flock(descriptor, fcntl.LOCK_SH)
                raise _busy(self._what)
            time.sleep(_STEP)
        try:
            yield
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_SH)

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


class SessionClaims:
    """Claims among all that use one PostgreSQL database."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._idle: list[psycopg.Connection] = []
        self._guard = threading.Lock()

    @contextmanager
    def hold(self, what: str) -> Iterator[None]:
        """Wait and hold; raises UpstreamError while the database is down."""
        connection = self._take()
        with _translated():
            connection.execute("SELECT pg_advisory_lock(%s)", (_number(what),))
        try:
            yield
        finally:
            # A lost session has given it back by itself.
            with suppress(psycopg.Error):
                connection.execute("SELECT pg_advisory_unlock(%s)", (_number(what),))
            with self._guard:
                self._idle.append(connection)

    def share(self, what: str) -> Shared:
        """Use something together with others."""
        return _SharedSession(_connect(self._url), what)

    def close(self) -> None:
        """End the idle sessions."""
        with self._guard:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _take(self) -> psycopg.Connection:
        with self._guard:
            while self._idle:
                connection = self._idle.pop()
                if not connection.closed:
                    return connection
        return _connect(self._url)


class _SharedSession:
    def __init__(self, connection: psycopg.Connection, what: str) -> None:
        self._connection = connection
        self._what = what
        with _translated():
            connection.execute("SELECT pg_advisory_lock_shared(%s)", (_number(what),))

    @contextmanager
    def alone(self, wait: float) -> Iterator[None]:
        """Trade the shared lock for the only one: others that wait for it fail, none deadlocks."""
        number, until = (_number(self._what),), time.monotonic() + wait
        with _translated():
            self._connection.execute("SELECT pg_advisory_unlock_shared(%s)", number)
            try:
                while not self._try(number):
                    if time.monotonic() >= until:
                        raise _busy(self._what)
                    time.sleep(_STEP)
            except Conflict:
                self._connection.execute("SELECT pg_advisory_lock_shared(%s)", number)
                raise
        try:
            yield
        finally:
            with suppress(psycopg.Error):
                self._connection.execute("SELECT pg_advisory_unlock(%s)", number)
                self._connection.execute("SELECT pg_advisory_lock_shared(%s)", number)

    def _try(self, number: tuple[int]) -> bool:
        row = self._connection.execute("SELECT pg_try_advisory_lock(%s)", number).fetchone()
        return bool(row and row[0])

    def close(self) -> None:
        with suppress(psycopg.Error):
            self._connection.close()


def _busy(what: str) -> Conflict:
    return Conflict(
        f"another command is using the {what}",
        hint="a sync or an import runs: try again when it is done",
    )


def _number(what: str) -> int:
    return int.from_bytes(hashlib.sha256(f"kgate:{what}".encode()).digest()[:8], signed=True)


def _connect(url: str) -> psycopg.Connection:
    with _translated():
        return psycopg.connect(url, autocommit=True, connect_timeout=CONNECT_TIMEOUT)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (psycopg.Error, OSError) as exc:
        raise UpstreamError(
            f"the database cannot be asked who does what: {str(exc).strip().splitlines()[0]}",
            hint="check that it is up; a pooler has to keep sessions (session pooling)",
        ) from exc
