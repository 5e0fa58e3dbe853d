"""The serving application: one ASGI callable over a catalog and a blob store.

Answers each request with the snapshot of that moment, counts it, and takes the next snapshot when
something changed; errors become answers here and nowhere below. Which part answers is `router`'s
to say, who listens on which port `server`'s.
"""

from __future__ import annotations

import asyncio
import math
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import structlog

from kgate_core.errors import (
    Conflict,
    IntegrityError,
    InvalidInput,
    KgateError,
    NotFound,
    TrustError,
    UpstreamError,
)
from kgate_mirror_server.serve.access import OpenAccess
from kgate_mirror_server.serve.adminapi import AdminApi
from kgate_mirror_server.serve.blobguard import BlobGuard
from kgate_mirror_server.serve.blobresponse import BlobSender, SmallBlobs
from kgate_mirror_server.serve.evidenceapi import EvidenceApi
from kgate_mirror_server.serve.gauges import gauges_of
from kgate_mirror_server.serve.hubapi import HubApi
from kgate_mirror_server.serve.kept import Kept
from kgate_mirror_server.serve.metrics import CONTENT_TYPE, Metrics
from kgate_mirror_server.serve.podapi import PodApi
from kgate_mirror_server.serve.rate import RateLimit
from kgate_mirror_server.serve.reports import ReportInbox, Ungated
from kgate_mirror_server.serve.requestlog import observers
from kgate_mirror_server.serve.router import Asked, Router
from kgate_mirror_server.serve.snapshot import SnapshotSource
from kgate_mirror_server.serve.traffic import Watched, count, part_of
from kgate_mirror_server.serve.trustfolder import TrustFolder
from kgate_mirror_server.serve.wire import Answer, Request, error, json_answer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kgate_mirror_server.catalog.bell import Bell
    from kgate_mirror_server.ports import BlobStore
    from kgate_mirror_server.serve.access import Access, Grant
    from kgate_mirror_server.serve.delegate import ModelDelegate
    from kgate_mirror_server.serve.qualifications import QualificationInbox
    from kgate_mirror_server.serve.settings import ServeSettings
    from kgate_mirror_server.serve.snapshot import CatalogReader
    from kgate_mirror_server.serve.usage import Usage
    from kgate_mirror_server.serve.wire import Receive, Scope, Send

_log: Final = structlog.get_logger(__name__)

STATUSES: Final[dict[type[KgateError], int]] = {
    InvalidInput: 400,
    NotFound: 404,
    Conflict: 409,
    IntegrityError: 503,
    TrustError: 503,
    UpstreamError: 503,
    KgateError: 500,
}
"""The one table from errors to HTTP statuses; the nearest class in the family counts."""


_HEALTH: Final = frozenset({"/healthz", "/readyz"})  # asked by machines that must not be kept out


def status_of(exc: KgateError) -> int:
    """Return the HTTP status of an error."""
    return next(STATUSES[kind] for kind in type(exc).__mro__ if kind in STATUSES)


class ServeApp:
    """The ASGI application; `source.current` is what it serves at this moment."""

    def __init__(
        self,
        source: SnapshotSource,
        router: Router,
        settings: ServeSettings,
        access: Access,
        metrics: Metrics,
        refresh: Callable[[], None] | None,
        reports: ReportInbox,
    ) -> None:
        self.source = source
        self.metrics = metrics
        self._router = router
        self._settings = settings
        self._access = access
        self._refresh = refresh
        self._reports = reports
        self._next_refresh = 0.0
        self._usage: Usage | None = None
        self.guard: BlobGuard | None = None
        self._admin = AdminApi(source)
        self._same_for_all = isinstance(access, OpenAccess) and not settings.marked_lanes
        self._observers = observers(settings, metrics)
        self.keeps_answers = not self._observers  # who looks at requests sees every one
        """Whether answers may be kept as long as the snapshot lasts."""
        limits = settings.limits
        self._rate = (
            None
            if limits.requests_per_second is None
            else RateLimit(limits.requests_per_second, limits.burst)
        )
        self.bell: Bell | None = None
        """Says when to look at the catalog before the time has come."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection scope of ASGI 3."""
        match scope["type"]:
            case "lifespan":
                await self._live(receive, send)
            case "http":
                request = Request(scope, receive)
                if wait := self.over_rate(str(scope.get("client")), scope["path"]):
                    await _too_many(wait).send(request, send)
                elif self._observers:
                    await self._observed(request, Watched(send))
                else:
                    await self._respond(request, Watched(send))
            case _:
                await send({"type": "websocket.close", "code": 1000})

    def over_rate(self, client: str, path: str) -> float:
        """Count a request of `address:port`; return 0, or the seconds that it should wait."""
        if self._rate is None or path in _HEALTH:
            return 0.0
        return self._rate.wait(client, time.monotonic())

    def sight(self, request: Callable[[], Request]) -> tuple[Grant, ...] | None:
        """Return what the caller of a request may see at this moment; None if it is refused."""
        if self._same_for_all:
            return ()
        made = request()
        asked = self._router.admit(made, made.segments or [])
        return asked.caller.grants if isinstance(asked, Asked) else None

    async def _observed(self, request: Request, send: Watched) -> None:
        part = part_of(request.segments or [])
        begun = [(one, one.begin(request, part)) for one in self._observers]
        try:
            await self._respond(request, send)
        finally:
            for one, its_own in begun:
                one.end(its_own, send.status)

    async def _respond(self, request: Request, send: Watched) -> None:
        parts = request.segments or []
        try:
            answer = await self._answer(request, parts, send)
        except KgateError as exc:
            answer = error(status_of(exc), exc.message)
        except Exception:  # noqa: BLE001  # whatever it was, the client gets an answer
            _log.exception("request.failed", method=request.method, parts=list(parts)[:3])
            answer = error(500, "kgate failed to answer; its log says why")
        if answer is not None and not send.status:
            await answer.send(request, send)
        count(self.metrics, request, parts, send)

    async def _answer(self, request: Request, parts: Sequence[str], send: Watched) -> Answer | None:
        """Return the answer, or None if it was sent already."""
        match parts:
            case []:
                return error(404, "this address cannot name anything", code="EntryNotFound")
            case ["healthz"]:
                return json_answer({"status": "ok"})
            case ["readyz"]:
                return self._ready()
            case _:
                pass
        asked = self._router.admit(request, parts)
        if not isinstance(asked, Asked):
            return asked
        if parts == ["metrics"]:
            return self._metrics(asked)
        if asked.parts[:4] == ["api", "kgate", "v1", "admin"]:
            return await self._admin.answer(asked, send)
        return await self._router.answer(asked, self.source.current, send)

    def _metrics(self, asked: Asked) -> Answer:
        if not asked.caller.sees_everything:
            return error(404, "there is nothing at this address")
        body = self.metrics.render(gauges_of(self.source.current, self.source.state()))
        return Answer(200, body, ((b"content-type", CONTENT_TYPE),))

    def _ready(self) -> Answer:
        snapshot = self.source.current
        ready = snapshot.generation >= 0 and snapshot.trusted
        state = self.source.state()
        return json_answer(
            {
                "status": "ready" if ready else "not ready",
                "generation": snapshot.generation,
                "trusted": snapshot.trusted,
                "catalog": "up" if state.catalog_up else "down",
                "fromKept": state.from_kept,
            },
            status=200 if ready else 503,
        )

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        await asyncio.to_thread(self.begin)
        watching = asyncio.create_task(self.watch())
        await send({"type": "lifespan.startup.complete"})
        await receive()
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
        await send({"type": "lifespan.shutdown.complete"})

    def begin(self) -> None:
        """Take the first snapshot."""
        self.turn(time.monotonic())

    async def watch(self) -> None:
        """Look for changes until cancelled: at every ring of the bell, and now and then anyway."""
        while True:
            if self.bell is None:
                await asyncio.sleep(self._settings.poll_seconds)
            else:
                await asyncio.to_thread(self.bell.wait, self._settings.poll_seconds)
            await asyncio.to_thread(self.turn, time.monotonic())

    def turn(self, now: float) -> None:
        """Do what is due by a monotonic clock: sign the timestamp anew, take the next snapshot."""
        try:
            self._refresh_trust(now)
            if self.source.refresh():
                self._access.refresh()
        except Exception:  # noqa: BLE001  # the current snapshot stays, the next turn tries again
            _log.exception("snapshot.failed")
        if self._usage is not None:
            self._usage.flush()
        self._reports.sweep()
        self.metrics.share()

    def take_qualifications(self, inbox: QualificationInbox) -> None:
        """Let results of `kgate qualify` come in."""
        self._router.qualifications = inbox

    def note_usage(self, usage: Usage) -> None:
        """Let it know which publications are used; it writes what is new with each turn."""
        self._usage = usage
        self._router.used = usage.note

    def _refresh_trust(self, now: float) -> None:
        if self._refresh is None or now < self._next_refresh:
            return
        self._next_refresh = now + self._settings.refresh_seconds
        try:
            self._refresh()
        except KgateError as exc:
            _log.error("timestamp.failed", reason=exc.message)


def _too_many(seconds: float) -> Answer:
    wait = str(math.ceil(seconds)).encode("ascii")
    return error(429, "too many requests from this address", (b"retry-after", wait))


def _delegate(settings: ServeSettings) -> ModelDelegate | None:
    if settings.delegate is None:
        return None
    # An HTTP client is nothing that a mirror without a delegate should carry.
    from kgate_mirror_server.serve.delegate import ModelDelegate  # noqa: PLC0415

    return ModelDelegate(settings.delegate)


def _alarm(
    settings: ServeSettings, clock: Callable[[], datetime]
) -> Callable[[Sequence[Ungated]], None] | None:
    if settings.alarm is None or settings.reports is None or not settings.alert_after:
        return None
    # Knows policies and an HTTP client: nothing that a mirror without a webhook should carry.
    from kgate_mirror_server.serve.alarm import Alarm  # noqa: PLC0415

    return Alarm(settings.alarm, clock).ring


def create_app(
    catalog: CatalogReader,
    store: BlobStore,
    settings: ServeSettings,
    *,
    access: Access | None = None,
    refresh: Callable[[], None] | None = None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> ServeApp:
    """Put the application together.

    `refresh` signs the timestamp role anew and is called in a thread every `refresh_seconds`;
    `access` decides who may see what (everybody everything unless given).
    """
    guard = BlobGuard(store)
    trust = TrustFolder(settings.trust)
    access = access or OpenAccess()
    kept = Kept(settings.kept) if settings.kept is not None else None
    source = SnapshotSource(catalog, store, guard, trust, clock, kept)
    sender = BlobSender(guard, SmallBlobs(), settings.send_file, settings.limits.ranges)
    metrics = Metrics(settings.metrics)
    reports = ReportInbox(
        settings.reports,
        metrics,
        alert_after=settings.alert_after,
        alarm=_alarm(settings, clock),
    )
    router = Router(
        HubApi(settings.public_url),
        PodApi(trust),
        EvidenceApi(store),
        sender,
        access,
        settings,
        reports,
        _delegate(settings),
    )
    app = ServeApp(source, router, settings, access, metrics, refresh, reports)
    app.guard = guard
    return app
