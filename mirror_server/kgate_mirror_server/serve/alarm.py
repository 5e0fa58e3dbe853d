"""Tells the site's webhook of kernels that were downloaded and that no pod reported (T55).

Serving does not wait for it: one thread at a time delivers, what comes meanwhile goes with the next
request. Nothing is sent twice; the log and `kgate_ungated_downloads_total` say the same.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import structlog

from kgate_mirror_server.events import MAX_EVENTS, PATIENCE, Event, Events, deliver
from kgate_signer.keys import read_private_file

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from kgate_mirror_server.serve.reports import Ungated
    from kgate_mirror_server.serve.settings import AlarmSettings

_log = structlog.get_logger(__name__)


class Alarm:
    """Sends alerts in the background."""

    def __init__(
        self,
        settings: AlarmSettings,
        clock: Callable[[], datetime],
        *,
        patience: float = PATIENCE,
    ) -> None:
        self._events = Events(webhook_url=settings.webhook_url, token_file=settings.token_file)
        self._site = settings.site
        self._clock = clock
        self._patience = patience
        self._waiting: list[Event] = []
        self._thread: threading.Thread | None = None
        self._turn = threading.Lock()

    def ring(self, found: Sequence[Ungated]) -> None:
        """Have these sent; returns at once and raises nothing."""
        with self._turn:
            self._waiting += [_event(item) for item in found]
            del self._waiting[:-MAX_EVENTS]
            if self._thread is None:
                self._thread = threading.Thread(target=self._send, name="alarm", daemon=True)
                self._thread.start()

    def finish(self) -> None:
        """Wait until what was given so far is sent, or has failed."""
        thread = self._thread
        if thread is not None:
            thread.join()

    def _send(self) -> None:
        while True:
            with self._turn:
                events, self._waiting = self._waiting, []
                if not events:
                    self._thread = None
                    return
            problem = deliver(
                self._events,
                self._site,
                events,
                self._clock(),
                read_file=lambda path: read_private_file(str(path)),
                patience=self._patience,
            )
            if problem:
                _log.warning("alert.undelivered", reason=problem)


def _event(found: Ungated) -> Event:
    return Event(
        "download.ungated",
        found.repo,
        "downloaded, and no pod reported that it was checked",
        {"revision": found.revision, "client": found.client},
    )
