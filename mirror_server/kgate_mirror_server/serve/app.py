"""The serving application: one ASGI callable over a catalog and a blob store.

Routes a request to the Hub's interface, the pod's channel or a page, always with one snapshot and
one caller. Requests that would change something are refused; errors become answers here and
nowhere below. Who listens on which port is `server`'s business.
"""

from __future__ import annotations

import asyncio
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
from kgate_mirror_server.serve.access import NOBODY, SHIM_MARK, OpenAccess
from kgate_mirror_server.serve.blobguard import BlobGuard
from kgate_mirror_server.serve.blobresponse import BlobSender, SmallBlobs
from kgate_mirror_server.serve.hubapi import FileAnswer, HubApi, find_file
from kgate_mirror_server.serve.lookup import Visible
from kgate_mirror_server.serve.page import kernel_page
from kgate_mirror_server.serve.podapi import PodApi
from kgate_mirror_server.serve.snapshot import SnapshotSource
from kgate_mirror_server.serve.target import find_target, no_repo
from kgate_mirror_server.serve.trustfolder import TrustFolder
from kgate_mirror_server.serve.wire import Request, error, json_answer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kgate_mirror_server.ports import BlobStore, Catalog
    from kgate_mirror_server.serve.access import Access
    from kgate_mirror_server.serve.settings import ServeSettings
    from kgate_mirror_server.serve.wire import Answer, Receive, Scope, Send

READ_ONLY: Final = "kgate mirror is read-only"
_CHALLENGE: Final = (b"www-authenticate", b"Bearer")
_READING: Final = frozenset({"GET", "HEAD"})
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


def status_of(exc: KgateError) -> int:
    """Return the HTTP status of an error."""
    return next(STATUSES[kind] for kind in type(exc).__mro__ if kind in STATUSES)


def _is_marked(request: Request, parts: Sequence[str]) -> bool:
    """Return whether the shim is beside this client, or the shim itself asks (THREATS T55)."""
    return parts[:2] == ["api", "kgate"] or SHIM_MARK in (request.header(b"user-agent") or "")


class ServeApp:
    """The ASGI application; `source.current` is what it serves at this moment."""

    def __init__(
        self,
        source: SnapshotSource,
        sender: BlobSender,
        trust: TrustFolder,
        settings: ServeSettings,
        access: Access,
        refresh: Callable[[], None] | None,
    ) -> None:
        self.source = source
        self._sender = sender
        self._settings = settings
        self._access = access
        self._refresh = refresh
        self._hub = HubApi(settings.public_url)
        self._pod = PodApi(trust)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection scope of ASGI 3."""
        match scope["type"]:
            case "lifespan":
                await self._live(receive, send)
            case "http":
                await self._respond(Request(scope, receive), send)
            case _:
                await send({"type": "websocket.close", "code": 1000})

    async def _respond(self, request: Request, send: Send) -> None:
        try:
            answer = await self._answer(request, send)
        except KgateError as exc:
            answer = error(status_of(exc), exc.message)
        if answer is not None:
            await answer.send(request, send)

    async def _answer(self, request: Request, send: Send) -> Answer | None:
        """Return the answer, or None if it was sent already."""
        parts = request.segments()
        if parts is None:
            return error(404, "this address cannot name anything here", code="EntryNotFound")
        match parts:
            case ["healthz"]:
                return json_answer({"status": "ok"})
            case ["readyz"]:
                return self._ready()
            case _:
                pass
        lane = self._settings.lane
        if len(parts) > 2 and parts[0] == "l":  # noqa: PLR2004  # /l/<lane>/…
            lane, parts = parts[1], parts[2:]
        writes_nothing = request.method in _READING or (
            request.method == "POST" and "paths-info" in parts
        )
        if not writes_nothing:
            return error(403, READ_ONLY)
        caller = self._access.caller(request)
        if caller is None:
            return error(401, "Invalid credentials in Authorization header", _CHALLENGE)
        if lane in self._settings.marked_lanes and not _is_marked(request, parts):
            caller = NOBODY
        snapshot = self.source.current
        if snapshot.generation < 0:
            return error(503, "the catalog could not be read yet", (b"retry-after", b"1"))
        visible = Visible(lane, snapshot.lane(lane), caller, self._settings.deny_style)
        return await self._route(request, send, parts, visible)

    async def _route(
        self, request: Request, send: Send, parts: Sequence[str], visible: Visible
    ) -> Answer | None:
        match parts:
            case ["api", "kgate", "v1", *rest]:
                return self._pod.answer(rest, visible)
            case ["api", *rest]:
                return await self._hub.api(request, rest, visible)
            case ["k", org, name]:
                return kernel_page(request, org, name, visible)
            case ["kernels", org, name, "resolve", revision, *path]:
                return await self._file(
                    request, send, ("kernels", org, name), revision, path, visible
                )
            case ["datasets" | "spaces" as kind, _, _, "resolve", *_]:
                return error(404, f"kgate serves kernels, not {kind}", code="RepoNotFound")
            case [org, name, "resolve", revision, *path]:
                return await self._file(
                    request, send, ("models", org, name), revision, path, visible
                )
            case _:
                return error(404, "there is nothing at this address")

    async def _file(
        self,
        request: Request,
        send: Send,
        named: tuple[str, str, str],
        revision: str,
        path: Sequence[str],
        visible: Visible,
    ) -> Answer | None:
        target = find_target(*named, visible)
        if target is None:
            return no_repo("/".join(named[1:]))
        found = find_file(target, revision, "/".join(path))
        if not isinstance(found, FileAnswer):
            return found
        await self._sender.send(request, send, found.file, found.headers)
        return None

    def _ready(self) -> Answer:
        snapshot = self.source.current
        ready = snapshot.generation >= 0 and snapshot.trusted
        return json_answer(
            {
                "status": "ready" if ready else "not ready",
                "generation": snapshot.generation,
                "trusted": snapshot.trusted,
            },
            status=200 if ready else 503,
        )

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        await asyncio.to_thread(self.turn, time.monotonic())
        watching = asyncio.create_task(self._watch())
        await send({"type": "lifespan.startup.complete"})
        await receive()
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
        await send({"type": "lifespan.shutdown.complete"})

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._settings.poll_seconds)
            await asyncio.to_thread(self.turn, time.monotonic())

    def turn(self, now: float) -> None:
        """Do what is due by a monotonic clock: sign the timestamp anew, take the next snapshot."""
        try:
            self._refresh_trust(now)
            if self.source.refresh():
                self._access.refresh()
        except Exception:  # noqa: BLE001  # the current snapshot stays, the next turn tries again
            _log.exception("snapshot.failed")

    def _refresh_trust(self, now: float) -> None:
        if self._refresh is None or now < self._next_refresh:
            return
        self._next_refresh = now + self._settings.refresh_seconds
        try:
            self._refresh()
        except KgateError as exc:
            _log.error("timestamp.failed", reason=exc.message)

    _next_refresh = 0.0


def create_app(
    catalog: Catalog,
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
    source = SnapshotSource(catalog, store, guard, trust, clock)
    sender = BlobSender(guard, SmallBlobs(), settings.send_file)
    return ServeApp(source, sender, trust, settings, access or OpenAccess(), refresh)
