"""One JSON line for each request, where a site wants them; and what else looks at requests.

A line says when, who asked, for what, and what came of it: no query, no header but the user agent,
so that no credential can be in it. Lines go to a stream and are not kept here.
"""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING, Any, Final, Protocol

from kgate_core.errors import InvalidInput

if TYPE_CHECKING:
    from kgate_mirror_server.serve.metrics import Metrics
    from kgate_mirror_server.serve.settings import ServeSettings
    from kgate_mirror_server.serve.wire import Request

_MAX_TEXT: Final = 512  # characters of a path or a user agent


class Observer(Protocol):
    """Looks at each request from its beginning to its end."""

    def begin(self, request: Request, part: str) -> Any:  # noqa: ANN401  # its own business
        """Return what `end` needs."""

    def end(self, begun: Any, status: int) -> None:  # noqa: ANN401  # the same
        """Note how it ended; 0 if the client went away before."""


class RequestLog:
    """Writes the lines."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def begin(self, request: Request, part: str) -> tuple[float, dict[str, Any]]:
        """Note the time and what is asked for."""
        client = request.scope.get("client")
        if not isinstance(client, str):  # a pair in ASGI; granian writes `address:port`
            client = f"{client[0]}:{client[1]}" if client else ""
        return time.monotonic(), {
            "event": "request",
            "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "client": client.rpartition(":")[0],
            "method": request.method,
            "path": str(request.scope["path"])[:_MAX_TEXT],
            "part": part,
            "userAgent": (request.header(b"user-agent") or "")[:_MAX_TEXT],
        }

    def end(self, begun: tuple[float, dict[str, Any]], status: int) -> None:
        """Write the line."""
        started, said = begun
        taken = round((time.monotonic() - started) * 1000, 3)
        line = json.dumps({**said, "status": status, "milliseconds": taken})
        self._stream.write(line + "\n")
        self._stream.flush()


def observers(settings: ServeSettings, metrics: Metrics) -> tuple[Observer, ...]:
    """Return what looks at requests; raises InvalidInput if its package is not there."""
    found: list[Observer] = [RequestLog(sys.stderr)] if settings.request_log else []
    if settings.otlp is not None:
        try:
            # An SDK with threads is nothing that a mirror without a collector should carry.
            from kgate_mirror_server.serve.telemetry import Telemetry  # noqa: PLC0415
        except ImportError as exc:
            raise InvalidInput(
                "serve.otlp: OpenTelemetry is not installed", hint="pip install 'kgate[otel]'"
            ) from exc
        found.append(Telemetry(settings.otlp, metrics))
    return tuple(found)
