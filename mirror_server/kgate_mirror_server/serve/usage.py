"""Remembers which publications clients ask for: one note for each and each day, written in batches.

The first request of a day costs a set lookup like all others; the next turn of the server writes
what is new in one transaction. While the database is down notes are kept, and a server that stops
loses at most those of its last second. Who asked is not kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog

from kgate_core.errors import KgateError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import date, datetime

    from kgate_mirror_server.catalog.keeping import Place

_log: Final = structlog.get_logger(__name__)


class Usage:
    """What this process saw today."""

    def __init__(
        self, keep: Callable[[Iterable[Place], date], None], clock: Callable[[], datetime]
    ) -> None:
        self._keep = keep
        self._clock = clock
        self._day = clock().date()
        self._kept: set[Place] = set()
        self._new: set[Place] = set()
        self._troubled = False

    def note(self, place: Place) -> None:
        """Note a use; any thread may."""
        if place not in self._kept:
            self._new.add(place)

    def flush(self) -> None:
        """Write what is new; raises nothing."""
        day = self._clock().date()
        if day != self._day:
            self._day = day
            self._kept = set()
        new, self._new = self._new, set()
        if not new:
            return
        try:
            self._keep(sorted(new), day)
        except KgateError as exc:
            if not self._troubled:
                _log.error("usage.failed", reason=exc.message)
            self._troubled = True
            self._new |= new
            return
        self._troubled = False
        self._kept |= new
