"""Posts reports in the background: never in a load's way, never more than a bounded queue.

`KGATE_REPORT_URL` turns it on: `mirror` for the mirror that HF_ENDPOINT names, or an address that
takes JSON lines. What cannot be delivered is dropped and counted; nothing is tried for long, and
an ending process waits a second at most. The token goes to the mirror's own host only.
"""

from __future__ import annotations

import atexit
import contextlib
import http.client
import ssl
import threading
import time
import urllib.request
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from pathlib import Path

    from kgate_client.config import PodConfig

MIRROR: Final = "mirror"
PATH: Final = "/api/kgate/v1/reports"
MAX_QUEUE: Final = 256  # reports that wait; beyond it the oldest go
MAX_BATCH: Final = 64  # reports in one request, well below what a mirror takes
TIMEOUT: Final = 5.0  # seconds for one request
FAREWELL: Final = 1.0  # seconds that an ending process waits for its last reports
PAUSE: Final = 30.0  # seconds without an attempt after one that failed


@dataclass(frozen=True, slots=True)
class Address:
    """Where reports go."""

    url: str
    token: str | None = None
    ca_bundle: Path | None = None

    @classmethod
    def of(cls, config: PodConfig, token: str | None) -> Address | None:
        """Return where a configuration sends reports; None without, and offline."""
        url = config.report_url
        if url is None or config.offline:
            return None
        if url == MIRROR:
            if config.endpoint is None:
                return None
            url = config.endpoint + PATH
        try:
            if urlsplit(url).scheme not in {"http", "https"}:
                return None
            own = config.endpoint is not None and _host(url) == _host(config.endpoint)
        except ValueError:
            return None  # no address at all: reports stay where they are
        return cls(url, token if own else None, config.ca_bundle)


class Poster:
    """A queue and a thread that starts with the first report."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._queue: deque[bytes] = deque(maxlen=MAX_QUEUE)
        self._turn = threading.Condition()
        self._thread: threading.Thread | None = None
        self._ending = False
        self._busy = False
        self.dropped = 0
        """Reports that nobody got, since the process began."""

    def put(self, line: bytes) -> None:
        """Queue one report; returns at once, whatever the network does."""
        with self._turn:
            if len(self._queue) == MAX_QUEUE:
                self.dropped += 1
            self._queue.append(line)
            if self._thread is None and not self._ending:
                self._thread = threading.Thread(target=self._run, name="kgate-reports", daemon=True)
                try:
                    self._thread.start()
                except RuntimeError:  # no more threads, or the interpreter ends
                    self._thread = None
                    return
                atexit.register(self.close)
            self._turn.notify()

    def renew_lock(self) -> None:
        """Start anew in a forked child: the parent sends what the parent queued."""
        self._turn = threading.Condition()
        self._queue.clear()
        self._thread = None
        self._busy = False

    def close(self) -> None:
        """Give the last reports a moment, then let go."""
        until = time.monotonic() + FAREWELL
        with self._turn:
            self._ending = True
            self._turn.notify()
            while (self._queue or self._busy) and (left := until - time.monotonic()) > 0:
                self._turn.wait(left)

    def _run(self) -> None:
        while True:
            with self._turn:
                while not self._queue:
                    if self._ending:
                        return
                    self._turn.wait()
                batch = [self._queue.popleft() for _ in range(min(MAX_BATCH, len(self._queue)))]
                self._busy = True
            sent = self._send(b"\n".join(batch) + b"\n")
            with self._turn:
                self._busy = False
                if not sent:
                    self.dropped += len(batch)
                    if self._ending:
                        self._queue.clear()
                self._turn.notify_all()
                if not sent and not self._ending:
                    self._turn.wait_for(lambda: self._ending, PAUSE)

    def _send(self, body: bytes) -> bool:
        headers = {"Content-Type": "application/x-ndjson", "User-Agent": "kgate-client"}
        if self._address.token:
            headers["Authorization"] = f"Bearer {self._address.token}"
        request = urllib.request.Request(  # noqa: S310  # its scheme was checked
            self._address.url, data=body, headers=headers, method="POST"
        )
        with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
            with self._open(request) as response:
                response.read(1024)
            return True
        return False

    def _open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        handlers: list[urllib.request.BaseHandler] = [_NoRedirects()]
        if request.type == "https":
            cafile = None if self._address.ca_bundle is None else str(self._address.ca_bundle)
            context = ssl.create_default_context(cafile=cafile)
            handlers.append(urllib.request.HTTPSHandler(context=context))
        opener = urllib.request.build_opener(*handlers)
        response: http.client.HTTPResponse = opener.open(request, timeout=TIMEOUT)
        return response


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object, **__: object) -> None:
        """Follow nobody: a token is in the headers."""


def _host(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc
