"""Puts the ASGI application on granian's own interface, RSGI, which sends files and ranges itself.

One message for a small answer instead of two, and a range of a file as fast as the whole. Answers
that depend on nothing but snapshot, path and what a caller may see are kept until the next
snapshot; who asks is looked at every time. Specification: RSGI 1.6 of granian. Nothing is decided
here.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Protocol

from granian._granian import RSGIProtocolClosed as ProtocolClosed
from granian._granian import RSGIProtocolError as ProtocolError

from kgate_core.errors import InvalidInput
from kgate_mirror_server.serve.wire import FILE_RANGE, FIXED, PATHSEND, Request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from kgate_mirror_server.serve.access import Grant
    from kgate_mirror_server.serve.app import ServeApp
    from kgate_mirror_server.serve.snapshot import Snapshot
    from kgate_mirror_server.serve.wire import Message

_EXTENSIONS: Final[dict[str, dict[str, str]]] = {PATHSEND: {}, FILE_RANGE: {}}

_FIRST: Final = ("/metadata.json", "/config.json")
MAX_FIXED: Final = 4096  # kept answers; their bodies are those of the small-file cache

Headers = list[tuple[str, str]]
_Key = tuple[str, str, "tuple[Grant, ...]"]
"""Method, path, and what its callers may see: none of these callers gets another's answer."""


class _Scope(Protocol):
    proto: str
    http_version: str
    scheme: str
    method: str
    path: str
    query_string: str
    authority: str | None
    client: str

    @property
    def headers(self) -> Any: ...  # noqa: ANN401  # granian's own mapping


class _Stream(Protocol):
    async def send_bytes(self, data: bytes) -> None: ...


class _Connection(Protocol):
    def __aiter__(self) -> AsyncIterator[bytes]: ...
    def response_empty(self, status: int, headers: Headers) -> None: ...
    def response_bytes(self, status: int, headers: Headers, body: bytes) -> None: ...
    def response_file(self, status: int, headers: Headers, file: str) -> None: ...
    def response_file_range(
        self, status: int, headers: Headers, file: str, start: int, end: int
    ) -> None: ...
    def response_stream(self, status: int, headers: Headers) -> _Stream: ...


class RsgiApp:
    """The application as granian calls it."""

    def __init__(self, app: ServeApp, in_flight: int) -> None:
        self._app = app
        self._watching: asyncio.Task[None] | None = None
        self._snapshot: Snapshot | None = None
        self._fixed: dict[_Key, _Fixed] = {}
        self._turns = asyncio.Semaphore(in_flight)

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take the first snapshot before the first request, then keep looking."""
        self._app.begin()
        self._watching = loop.create_task(self._app.watch())

    def __rsgi_del__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Stop looking."""
        if self._watching is not None:
            self._watching.cancel()
            with suppress(asyncio.CancelledError):
                loop.run_until_complete(self._watching)

    async def __rsgi__(self, scope: _Scope, connection: _Connection) -> None:
        """Answer one request."""
        if scope.proto != "http":
            return
        app = self._app
        key = self._key(scope) if app.keeps_answers else None
        fixed = None if key is None else self._find(key)
        if fixed is not None and not app.over_rate(scope.client, scope.path):
            with suppress(ProtocolClosed):  # the client went away
                fixed.send(connection)
            app.metrics.sent_file(fixed.announced)
            return
        exchange, snapshot = _Exchange(connection), app.source.current
        asgi = _translate(scope)
        async with self._turns:
            with suppress(ProtocolClosed):
                await app(asgi, exchange.receive, exchange.send)
        if key is not None and FIXED in asgi and exchange.whole is not None:
            self._keep(key, exchange.whole, snapshot)

    def _key(self, scope: _Scope) -> _Key | None:
        """Return what the answer to this request may be kept under; None if it may not be."""
        headers = scope.headers
        # What clients ask for first is never kept: by it use is noted and reports are awaited.
        if scope.query_string or scope.path.endswith(_FIRST):
            return None
        if "range" in headers or "if-none-match" in headers:
            return None
        sight = self._app.sight(lambda: Request(_translate(scope), _nothing))
        return None if sight is None else (scope.method, scope.path, sight)

    def _find(self, key: _Key) -> _Fixed | None:
        """Return the kept answer if the snapshot that it was made from is still the one."""
        current = self._app.source.current
        if self._snapshot is not current:
            self._snapshot, self._fixed = current, {}
        return self._fixed.get(key)

    def _keep(self, key: _Key, answer: _Fixed, snapshot: Snapshot) -> None:
        if snapshot is not self._snapshot:
            return
        if len(self._fixed) >= MAX_FIXED:
            self._fixed.clear()
        announced = 0 if key[0] == "HEAD" else answer.announced
        self._fixed[key] = replace(answer, announced=announced)


@dataclass(frozen=True, slots=True)
class _Fixed:
    """A whole answer of one message."""

    status: int
    headers: Headers
    body: bytes
    announced: int
    """Bytes of body that count as sent."""

    def send(self, connection: _Connection) -> None:
        """Send it."""
        if self.body:
            connection.response_bytes(self.status, self.headers, self.body)
        else:
            connection.response_empty(self.status, self.headers)


class _Exchange:
    """One request's body and answer, between the two interfaces."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self._chunks: AsyncIterator[bytes] | None = None
        self._status = 0
        self._headers: Headers = []
        self._stream: _Stream | None = None
        self.whole: _Fixed | None = None
        """The answer, if it went out in one message."""

    async def receive(self) -> Message:
        """Return the next part of the body."""
        if self._chunks is None:
            self._chunks = self._connection.__aiter__()
        try:
            # Not `anext(…, None)`: CPython 3.11 crashes in it on awaitables that are no coroutines.
            chunk = await self._chunks.__anext__()
        except StopAsyncIteration:
            return {"type": "http.request", "body": b"", "more_body": False}
        except ProtocolError as exc:
            raise InvalidInput("the body cannot be read to its end") from exc
        return {"type": "http.request", "body": bytes(chunk), "more_body": True}

    async def send(self, message: Message) -> None:
        """Send a part of the answer; the head goes out with the first of the body."""
        match message["type"]:
            case "http.response.start":
                self._status = message["status"]
                self._headers = [
                    (name.decode("latin-1"), value.decode("latin-1"))
                    for name, value in message["headers"]
                ]
            case "http.response.body":
                await self._send_body(
                    message.get("body", b""), more=message.get("more_body", False)
                )
            case "http.response.pathsend":
                self._connection.response_file(self._status, self._headers, message["path"])
            case _:  # kgate.response.filerange
                self._connection.response_file_range(
                    self._status, self._headers, message["path"], message["start"], message["end"]
                )

    async def _send_body(self, body: bytes, *, more: bool) -> None:
        if self._stream is None and not more:
            self.whole = _Fixed(self._status, self._headers, body, len(body))
            self.whole.send(self._connection)
            return
        if self._stream is None:
            self._stream = self._connection.response_stream(self._status, self._headers)
        if body:
            await self._stream.send_bytes(body)


async def _nothing() -> Message:
    """Stand for a body where none is read."""
    return {"type": "http.request", "body": b"", "more_body": False}


def _translate(scope: _Scope) -> dict[str, Any]:
    headers: Iterable[tuple[str, str]] = scope.headers.items()
    pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    if scope.authority is not None:
        pairs.append((b"host", scope.authority.encode("latin-1", "replace")))
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": scope.http_version,
        "method": scope.method,
        "scheme": scope.scheme,
        "path": scope.path,
        "query_string": scope.query_string.encode("latin-1", "replace"),
        "headers": pairs,
        "client": scope.client,
        "extensions": _EXTENSIONS,
    }
