"""Runs the serving application under granian until it is told to stop.

Workers are processes with an application each; the port is shared. Requests in flight get
`drain_seconds` to finish. Nothing is printed here.
"""

from __future__ import annotations

import fcntl
import os
import sys
import tempfile
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
from granian.constants import HTTPModes, Interfaces, Loops
from granian.http import HTTP1Settings
from granian.server import MPServer

from kgate_core.errors import KgateError, UpstreamError
from kgate_mirror_server.catalog.bell import Bell
from kgate_mirror_server.catalog.keeping import SqlKeeping
from kgate_mirror_server.catalog.lazy import LazyCatalog
from kgate_mirror_server.catalog.tokens import SqlTokens
from kgate_mirror_server.serve.access import OpenAccess, TokenAccess
from kgate_mirror_server.serve.app import create_app
from kgate_mirror_server.serve.connections import ConnectionBounds, most_connections
from kgate_mirror_server.serve.jwts import AccountGrant, JwtAccess
from kgate_mirror_server.serve.kept import Kept
from kgate_mirror_server.serve.qualifications import QualificationInbox
from kgate_mirror_server.serve.rsgi import RsgiApp
from kgate_mirror_server.serve.usage import Usage
from kgate_mirror_server.store.disk import DiskStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import date

    from kgate_core.digest import Digest
    from kgate_mirror_server.catalog.keeping import Place
    from kgate_mirror_server.catalog.tokens import Token
    from kgate_mirror_server.serve.access import Access
    from kgate_mirror_server.serve.settings import ServeSettings, TlsFiles

TLS_POLL = 5  # seconds between two looks at the certificate

_log = structlog.get_logger(__name__)


def run(
    settings: ServeSettings,
    *,
    refresh: Callable[[], None] | None = None,
    started: Callable[[], None] | None = None,
    repair: Callable[[Digest], str | None] | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM; raises KgateError if the database cannot be opened.

    `refresh` signs the timestamp role anew; of several workers one does it. `started` is called
    once the port is bound. `repair` fetches a damaged blob again and returns why it could not.
    """
    # Opened once here, so that what is wrong with it is said to the caller, not by a worker.
    catalog = open_catalog(settings)
    try:
        catalog.generation()
    except UpstreamError as exc:
        if settings.kept is None or not Kept(settings.kept).exists:
            raise
        _log.error("catalog.failed", reason=exc.message, kept=str(settings.kept))
    finally:
        catalog.close()
    with tempfile.TemporaryDirectory(prefix="kgate-serve-") as shared:
        _run(replace(settings, metrics=settings.metrics or Path(shared)), refresh, started, repair)


def _run(
    settings: ServeSettings,
    refresh: Callable[[], None] | None,
    started: Callable[[], None] | None,
    repair: Callable[[Digest], str | None] | None,
) -> None:
    server = MPServer(
        "kgate",
        address=settings.host,
        port=settings.port,
        interface=Interfaces.RSGI,
        workers=settings.workers,
        loop=Loops.auto,
        http=HTTPModes.http1,
        websockets=False,
        backlog=settings.limits.backlog,
        # What granian bounds by this is connections; `rsgi` bounds requests.
        backpressure=min(settings.limits.connections, most_connections()),
        http1_settings=HTTP1Settings(
            header_read_timeout=round(settings.limits.header_seconds * 1000),
            max_buffer_size=settings.limits.header_bytes,
        ),
        log_enabled=False,
        ssl_cert=settings.tls.certificate if settings.tls else None,
        ssl_key=settings.tls.key if settings.tls else None,
        workers_kill_timeout=settings.drain_seconds,
        respawn_failed_workers=True,
    )
    if started is not None:
        server.on_startup(started)
    if settings.tls is not None:
        server.on_startup(partial(_watch_files, server, settings.tls))
    try:
        loader: Callable[[], Any] = partial(load, settings, refresh, repair)
        server.serve(target_loader=loader, wrap_loader=False)
    except (SystemExit, RuntimeError, OSError) as exc:
        reason = next(iter(str(exc).splitlines()), "")
        raise KgateError(
            f"the server on {settings.host}:{settings.port} ended by itself: {reason}",
            hint="is the port taken, or a file unreadable? its log says more",
        ) from exc


def load(
    settings: ServeSettings,
    refresh: Callable[[], None] | None,
    repair: Callable[[Digest], str | None] | None = None,
) -> RsgiApp:
    """Build the application inside a worker, logging JSON lines to stderr."""
    if not structlog.is_configured():
        log_json()
    if refresh is not None:
        refresh = OnlyOne(settings.trust / ".refresh.lock", refresh)
    catalog = open_catalog(settings)
    store = settings.objects.open() if settings.objects else DiskStore(settings.store)
    app = create_app(
        catalog,
        store,
        settings,
        access=open_access(catalog, settings),
        refresh=refresh,
    )
    app.bell = Bell(settings.database)

    def keep(places: Iterable[Place], day: date) -> None:
        SqlKeeping(catalog.engine).use(places, day)

    app.take_qualifications(
        QualificationInbox(lambda: catalog.engine, lambda: datetime.now(UTC).replace(microsecond=0))
    )
    app.note_usage(Usage(keep, lambda: datetime.now(UTC)))
    # A bucket is read again by the workers, once for all replicas.
    if settings.patrol is not None and app.guard is not None and settings.objects is None:
        # Knows upstreams and bundles: not loaded where nobody asked for it.
        from kgate_mirror_server.serve.patrol import Patrol  # noqa: PLC0415

        Patrol(settings.store, store, app.guard, settings.patrol, repair).start()
    bounds = settings.limits
    most = min(bounds.connections, most_connections())
    ConnectionBounds(settings.port, bounds, most * 9 // 10).start()
    return RsgiApp(app, bounds.in_flight)


def open_catalog(settings: ServeSettings) -> LazyCatalog:
    """Return the catalog; a database file is made only where nothing was served before."""
    kept = None if settings.kept is None else Kept(settings.kept)
    return LazyCatalog(settings.database, lambda: kept is None or not kept.exists)


def open_access(catalog: LazyCatalog, settings: ServeSettings) -> Access:
    """Return who may see what, as configured."""
    access = settings.access
    if not access.tokens:
        return OpenAccess()
    jwts = None
    if access.jwt is not None:
        accounts = tuple(AccountGrant(subject, grant) for subject, grant in access.jwt.accounts)
        jwts = JwtAccess(access.jwt.jwks, access.jwt.issuer, access.jwt.audience, accounts)

    def ask() -> Sequence[Token]:
        return SqlTokens(catalog.engine).tokens()

    tokens = ask if settings.kept is None else partial(Kept(settings.kept).tokens, ask)
    return TokenAccess(tokens, access.anonymous, lambda: datetime.now(UTC), jwts)


def _watch_files(server: MPServer, tls: TlsFiles) -> None:
    """Let the workers be replaced, one after the other, when certificate or key change."""

    def look() -> tuple[int, ...]:
        try:
            return tuple(path.stat().st_mtime_ns for path in (tls.certificate, tls.key))
        except OSError:
            return ()

    def watch() -> None:
        seen = look()
        while True:
            time.sleep(TLS_POLL)
            now = look()
            if now and now != seen:
                seen = now
                server.signal_handler_reload()  # type: ignore[no-untyped-call]  # as SIGHUP does

    threading.Thread(target=watch, name="kgate-tls", daemon=True).start()


def log_json() -> None:
    """Send this process's log to stderr, one JSON object a line."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


class OnlyOne:
    """Calls something in one process only: the one that holds a lock file, until it ends."""

    def __init__(self, lock: Path, call: Callable[[], None]) -> None:
        self._lock = lock
        self._call = call
        self._held: int | None = None

    def __call__(self) -> None:
        """Call it if this process holds the lock or can take it."""
        if self._held is None:
            descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(descriptor)
                return
            self._held = descriptor
        self._call()
