"""Asks an ASGI application directly, with exactly the bytes that a test wants in the path."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote


@dataclass(frozen=True)
class Reply:
    """What the application answered."""

    status: int
    headers: dict[str, str]
    body: bytes
    sent_path: str | None = None
    """The file that the server was told to send."""
    messages: list[str] = field(default_factory=list)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str | None:
        return self.headers.get("x-error-code")


def ask(
    app: Any,
    target: str | bytes,
    method: str = "GET",
    headers: dict[str, str] | list[tuple[str, str]] | None = None,
    body: bytes = b"",
    *,
    pathsend: bool = False,
) -> Reply:
    """Send one request and gather the answer; `target` is the raw path with its query."""
    raw = target.encode("ascii") if isinstance(target, str) else target
    path, _, query = raw.partition(b"?")
    pairs = list(headers.items()) if isinstance(headers, dict) else headers or []
    if not any(name.lower() == "host" for name, _ in pairs):
        pairs.append(("host", "mirror.test"))
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(path.decode("latin-1")),
        "raw_path": path,
        "query_string": query,
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in pairs],
        "client": ("127.0.0.1", 1),
        "extensions": {"http.response.pathsend": {}} if pathsend else {},
    }
    return _reply(asyncio.run(_ask(app, scope, body)))


async def _ask(app: Any, scope: dict[str, Any], body: bytes) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent


def _reply(sent: list[dict[str, Any]]) -> Reply:
    start, rest = sent[0], sent[1:]
    assert start["type"] == "http.response.start"
    pairs = [(name.decode(), value.decode("latin-1")) for name, value in start["headers"]]
    headers = dict(pairs)
    assert len(headers) == len(pairs), f"a header came twice: {pairs}"
    assert not rest[-1].get("more_body", False)
    paths = [message["path"] for message in rest if message["type"] == "http.response.pathsend"]
    data = b"".join(message.get("body", b"") for message in rest)
    if paths:
        data = Path(paths[0]).read_bytes()
    return Reply(
        start["status"], headers, data, paths[0] if paths else None, [m["type"] for m in rest]
    )
