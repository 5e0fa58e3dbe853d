"""Requests and answers as plain values, between the socket and the Hub's rules."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from kgate_mirror_server.hubsim.content import Blob


@dataclass(frozen=True, slots=True)
class Request:
    """One request; `target` is the path and query as they came, `headers` have lower-case names."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    base: str
    """The simulator's own URL, for links."""

    @property
    def path(self) -> str:
        """The path, percent-encoded as it came."""
        return self.target.partition("?")[0]

    @property
    def segments(self) -> list[str]:
        """The path's segments, decoded one by one: `refs%2Fheads%2Fv1` stays one."""
        return [unquote(segment) for segment in self.path.split("/")[1:]]

    @property
    def query(self) -> dict[str, str]:
        """The query's parameters, the last of each name."""
        return _last(self.target.partition("?")[2])

    def form(self) -> dict[str, list[str]]:
        """Read the body as a submitted form."""
        return parse_qs(self.body.decode("utf-8", "replace"))


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer. `chunks` yields the body; `length` is what is announced, None for open-ended."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    length: int | None = 0
    chunks: Callable[[], Iterator[bytes]] = lambda: iter(())
    blob: Blob | None = None
    keep_alive: bool = True
    delay: float = 0.0
    """Seconds before the answer and before each chunk of its body."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a client asked and what it was told, for tests; `blob` is the ETag of a served file."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    token: str | None
    status: int
    blob: str | None

    @property
    def user_agent(self) -> str:
        """The client's `User-Agent`."""
        return self.headers.get("user-agent", "")


def answer_json(
    document: object, status: int = 200, headers: Mapping[str, str] | None = None
) -> Answer:
    """Return an answer that carries a JSON document."""
    body = json.dumps(document, separators=(",", ":")).encode()
    return answer_bytes(body, "application/json; charset=utf-8", status, headers)


def answer_bytes(
    body: bytes, content_type: str, status: int = 200, headers: Mapping[str, str] | None = None
) -> Answer:
    """Return an answer that carries these bytes."""
    merged = {"Content-Type": content_type, **(headers or {})}
    return Answer(status, merged, len(body), lambda: iter((body,)))


def answer_error(status: int, message: str, code: str = "") -> Answer:
    """Return an error as the Hub words it: `X-Error-Code` decides what the client raises."""
    headers = {"X-Error-Message": message}
    if code:
        headers["X-Error-Code"] = code
    return answer_json({"error": message}, status, headers)


def _last(query: str) -> dict[str, str]:
    return {name: values[-1] for name, values in parse_qs(query, keep_blank_values=True).items()}
