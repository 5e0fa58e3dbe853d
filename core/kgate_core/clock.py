"""Times as documents write them: RFC 3339 in UTC, whole seconds, ending in Z.

No clock is read here: `now` is always an argument.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from kgate_core.errors import InvalidInput

_FORMAT: Final = "%Y-%m-%dT%H:%M:%SZ"


def write_time(moment: datetime) -> str:
    """Return a time zone aware moment as `2026-11-21T12:00:00Z`, cutting fractions of a second."""
    if moment.tzinfo is None:
        raise InvalidInput("a time without a time zone says nothing")
    return moment.astimezone(UTC).strftime(_FORMAT)


def read_time(text: str, *, what: str) -> datetime:
    """Read what `write_time` wrote; raises InvalidInput for every other spelling."""
    try:
        moment = datetime.strptime(text, _FORMAT).replace(tzinfo=UTC)
    except ValueError as exc:
        raise InvalidInput(f"{what}: {text!r} is not a time like 2026-11-21T12:00:00Z") from exc
    if write_time(moment) != text:
        raise InvalidInput(f"{what}: {text!r} is not a time like 2026-11-21T12:00:00Z")
    return moment
