from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from kgate_core.clock import read_time, write_time
from kgate_core.errors import InvalidInput

NOON = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)


def test_times_are_written_in_utc_and_whole_seconds() -> None:
    assert write_time(NOON + timedelta(microseconds=999_999)) == "2026-11-21T12:00:00Z"
    there = NOON.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert write_time(there) == "2026-11-21T12:00:00Z"
    assert read_time("2026-11-21T12:00:00Z", what="x") == NOON


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(InvalidInput, match="time zone"):
        write_time(NOON.replace(tzinfo=None))


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-21T12:00:00+00:00",
        "2026-11-21T12:00:00.0Z",
        "2026-11-21 12:00:00Z",
        "2026-11-21T12:00:00z",
        "2026-1-21T12:00:00Z",
        "2026-11-21T12:00:60Z",
        "2026-11-21T12:00:61Z",
        "2026-02-30T12:00:00Z",
        "0001-01-01T00:00:00Z",
        " 2026-11-21T12:00:00Z",
        "٢٠٢٦-11-21T12:00:00Z",
        "",
    ],
)
def test_every_other_spelling_of_a_time_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="expiry: "):
        read_time(text, what="expiry")
