"""What is counted about each request; see `metrics` for how the counts are kept and shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kgate_mirror_server.serve.metrics import Metrics
    from kgate_mirror_server.serve.wire import Message, Request, Send

_PARTS = {
    "api": "hub",
    "kernels": "file",
    "k": "page",
    "healthz": "health",
    "readyz": "health",
    "metrics": "health",
}


@dataclass(slots=True)
class Watched:
    """A `send` that notes what goes through it."""

    send: Send
    status: int = 0
    """0 until the answer has begun."""
    announced: int = 0
    """Bytes of body that the headers promise."""

    async def __call__(self, message: Message) -> None:
        """Pass a message on."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            for name, value in message["headers"]:
                if name == b"content-length":
                    self.announced = int(value)
        await self.send(message)


def count(metrics: Metrics, request: Request, parts: Sequence[str], sent: Watched) -> None:
    """Count one answered request."""
    part = part_of(parts)
    if parts[:1] == ["l"]:
        parts = parts[2:]
    metrics.count("kgate_requests_total", (("part", part), ("status", str(sent.status))))
    if part == "file" and not request.head and sent.status in {200, 206}:
        metrics.count("kgate_sent_bytes_total", by=sent.announced)
    match parts:
        case ["api", "kernels", _, _, "tree", _, "build"]:
            metrics.client(request.header(b"user-agent") or "")
            if sent.status == 200 and sent.announced == len(b"[]"):  # noqa: PLR2004  # HTTP's OK
                metrics.count("kgate_empty_builds_total")
        case ["api", "kernels", _, _, "tree", _]:
            metrics.count("kgate_cold_starts_total")
        case _:
            pass


def part_of(parts: Sequence[str]) -> str:
    """Return which part of the mirror an address belongs to, from a closed set."""
    match parts[2:] if parts[:1] == ["l"] else parts:
        case ["api", "kgate", *_]:
            return "pod"
        case [_, _, "resolve", *_]:
            return "file"
        case [first, *_]:
            return _PARTS.get(first, "other")
        case _:
            return "other"
