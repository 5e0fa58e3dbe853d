"""Requests and small answers, directly on ASGI: what the hot path needs and no more.

Paths are read from the raw bytes, because a decoded path cannot tell `%2F` from `/`. Headers that
do not decode, or that come too often, are treated as absent.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, unquote_to_bytes

from kgate_core.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    Scope = MutableMapping[str, Any]

Header = tuple[bytes, bytes]

PATHSEND: Final = "http.response.pathsend"
"""The ASGI extension by which the server sends a whole file."""
FILE_RANGE: Final = "kgate.response.filerange"
"""Our own, by which it sends a part of one: path, start and end (exclusive); see `rsgi`."""
FIXED: Final = "kgate.fixed"
"""Set in the scope of a request whose answer depends on nothing but the snapshot and the path."""
MAX_PATH: Final = 4096  # bytes of a raw path; a manifest path has at most 1,024
MAX_QUERY: Final = 4096  # bytes of a query string
MAX_FIELDS: Final = 100  # fields in one query string
_OK: Final = 200
_NOT_MODIFIED: Final = 304
_BRANCH: Final = "/refs/heads/"
_JSON: Final = (b"content-type", b"application/json; charset=utf-8")
_NOSNIFF: Final = (b"x-content-type-options", b"nosniff")


@dataclass(frozen=True)
class Request:
    """One HTTP request."""

    scope: Scope
    receive: Receive

    @property
    def method(self) -> str:
        """The method in capitals."""
        return str(self.scope["method"])

    @property
    def head(self) -> bool:
        """True if only the headers are wanted."""
        return self.method == "HEAD"

    def offers(self, extension: str) -> bool:
        """Return whether the server has an extension."""
        return extension in self.scope.get("extensions", ())

    @cached_property
    def headers(self) -> dict[bytes, bytes | None]:
        """Headers by lower-case name; None for one that came more than once."""
        found: dict[bytes, bytes | None] = {}
        for name, value in self.scope["headers"]:
            found[name] = None if name in found else value
        return found

    def header(self, name: bytes) -> str | None:
        """Return a header that came exactly once (name in lower case), or None."""
        value = self.headers.get(name)
        return None if value is None else bytes(value).decode("latin-1").strip()

    def has(self, name: bytes) -> bool:
        """Return whether a header came at all."""
        return name in self.headers

    def query(self) -> dict[str, str]:
        """Return the query's fields, the last of each name; raises InvalidInput."""
        raw: bytes = self.scope["query_string"]
        if len(raw) > MAX_QUERY:
            raise InvalidInput(f"a query of more than {MAX_QUERY} bytes")
        try:
            return dict(
                parse_qsl(raw.decode("ascii"), keep_blank_values=True, max_num_fields=MAX_FIELDS)
            )
        except ValueError as exc:
            raise InvalidInput("a query that is not URL-encoded") from exc

    @cached_property
    def segments(self) -> list[str] | None:
        """Return the path's decoded segments; None if it is too long or not clean text.

        A segment may hold a slash that was written as `%2F`. Dots mean nothing here: what is
        asked for is looked up by its exact name.
        """
        raw: bytes | None = self.scope.get("raw_path")
        if raw is None:
            # Decoded by the server. `refs%2Fheads%2Fv1` has come apart then.
            path: str = self.scope["path"]
            if len(path) > MAX_PATH or not path.startswith("/") or not path.isprintable():
                return None
            if _BRANCH not in path:
                return path[1:].split("/")
            before, _, after = path[1:].partition(_BRANCH)
            branch, *rest = after.split("/")
            return [*before.split("/"), f"{_BRANCH[1:]}{branch}", *rest]
        raw = raw.split(b"?", 1)[0]
        if len(raw) > MAX_PATH or not raw.startswith(b"/"):
            return None
        try:
            found = [unquote_to_bytes(part).decode("utf-8") for part in raw[1:].split(b"/")]
        except UnicodeDecodeError:
            return None
        return found if all(part.isprintable() for part in found) else None

    async def body(self, limit: int) -> bytes:
        """Read the body; raises InvalidInput beyond `limit` bytes."""
        data = bytearray()
        while True:
            message = await self.receive()
            data += message.get("body", b"")
            if len(data) > limit:
                raise InvalidInput(f"a body of more than {limit} bytes")
            if not message.get("more_body", False):
                return bytes(data)


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer held in memory."""

    status: int
    body: bytes = b""
    headers: tuple[Header, ...] = field(default_factory=tuple)

    async def send(self, request: Request, send: Send) -> None:
        """Send it; a HEAD request gets the headers of the whole."""
        headers = list(self.headers)
        status, body = self.status, self.body
        etag = dict(headers).get(b"etag")
        if status == _OK and etag and matches(request.header(b"if-none-match"), etag.decode()):
            status, body = _NOT_MODIFIED, b""
        if status != _NOT_MODIFIED:  # RFC 9110 15.4.5: no content, and none announced
            headers.append((b"content-length", b"%d" % len(body)))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if request.head else body})


def json_answer(value: object, *headers: Header, status: int = 200) -> Answer:
    """Return a value as JSON."""
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    return Answer(status, body, (_JSON, _NOSNIFF, *headers))


def json_bytes(body: bytes, *headers: Header) -> Answer:
    """Return bytes that are JSON already."""
    return Answer(200, body, (_JSON, _NOSNIFF, *headers))


def error(status: int, message: str, *headers: Header, code: str = "") -> Answer:
    """Return an error as Hub clients read it: code and message in headers, the message as JSON.

    `code` is one of the Hub's `X-Error-Code` values, or empty.
    """
    told = [(b"x-error-message", _header_text(message))]
    if code:
        told.append((b"x-error-code", code.encode("ascii")))
    return json_answer({"error": message}, *told, *headers, status=status)


def _header_text(text: str) -> bytes:
    return " ".join(text.split()).encode("ascii", "replace")


def flag(query: dict[str, str], name: str) -> bool:
    """Return whether a query asks for something, as clients of all ages write it."""
    return query.get(name, "").lower() in {"true", "1"}


def matches(header: str | None, etag: str) -> bool:
    """Return whether If-None-Match names this entity tag, compared weakly (13.1.2)."""
    if header is None:
        return False
    return header == "*" or etag in {
        part.strip().removeprefix("W/") for part in header[:4096].split(",")
    }
