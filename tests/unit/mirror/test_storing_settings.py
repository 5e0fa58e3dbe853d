"""`store:`, `object_store:` and `sync:` in kgate.yaml."""

from __future__ import annotations

from datetime import timedelta

import pytest
from pydantic import ValidationError

from kgate_mirror_server.settings.storing import ObjectStorage, Schedule, is_remote


@pytest.mark.parametrize(
    ("written", "meant"),
    [("30m", timedelta(minutes=30)), ("6h", timedelta(hours=6)), ("1d", timedelta(days=1))],
)
def test_a_schedule_is_written_as_people_say_it(written: str, meant: timedelta) -> None:
    assert Schedule.model_validate({"every": written}).every == meant


@pytest.mark.parametrize("written", ["often", "0h", "1m", "6 hours", "-1h"])
def test_a_schedule_that_means_nothing_or_too_much_is_refused(written: str) -> None:
    with pytest.raises(ValidationError):
        Schedule.model_validate({"every": written})


def test_nothing_is_synced_by_itself_unless_asked_for() -> None:
    assert Schedule().every is None


def test_sizes_are_written_with_units_and_endpoints_as_addresses() -> None:
    assert ObjectStorage.model_validate({"cache_size": "5GB"}).cache_size == 5 * 10**9
    with pytest.raises(ValidationError, match="endpoint"):
        ObjectStorage.model_validate({"endpoint": "minio:9000"})
    with pytest.raises(ValidationError, match="secret"):
        ObjectStorage.model_validate({"secret": "x"})


def test_a_folder_is_not_remote() -> None:
    assert not is_remote("./kgate-data")
    assert is_remote("gs://bucket/prefix")
