from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

from kgate_core.errors import UpstreamError
from kgate_mirror_server.catalog.keeping import Place, SqlKeeping
from kgate_mirror_server.serve.usage import Usage
from tests.asgi import ask
from tests.mirrorkit import COMMIT, REPO, make_mirror

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

ONE, TWO = (Place("kernel", f"acme/{name}", "1" * 40, "experimental") for name in "ab")


class Clock:
    """A clock that a test sets, and what was kept under it."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 21, 23, 59, tzinfo=UTC)
        self.kept: list[tuple[list[Place], date]] = []
        self.down = False

    def __call__(self) -> datetime:
        return self.now

    def keep(self, places: Iterable[Place], day: date) -> None:
        if self.down:
            raise UpstreamError("the database is down")
        self.kept.append((list(places), day))


def test_each_publication_is_written_once_a_day_however_often_it_is_asked_for() -> None:
    clock = Clock()
    usage = Usage(clock.keep, clock)
    for _ in range(1000):
        usage.note(TWO)
        usage.note(ONE)
        usage.flush()
    assert clock.kept == [([ONE, TWO], date(2026, 11, 21))]
    clock.now += timedelta(minutes=2)
    usage.flush()
    usage.note(ONE)
    usage.flush()
    assert clock.kept[1:] == [([ONE], date(2026, 11, 22))]


def test_notes_outlive_a_database_that_is_down() -> None:
    clock = Clock()
    usage = Usage(clock.keep, clock)
    clock.down = True
    usage.note(ONE)
    usage.flush()
    usage.flush()
    clock.down = False
    usage.flush()
    assert clock.kept == [([ONE], date(2026, 11, 21))]


def test_a_request_for_a_file_is_a_use_and_one_for_nothing_is_none(tmp_path: Path) -> None:
    kit = make_mirror(tmp_path)
    kit.publish()
    keeping = SqlKeeping(kit.catalog.engine)
    app = kit.app()
    app.note_usage(Usage(keeping.use, lambda: kit.trust.now))
    assert ask(app, f"/kernels/{REPO}/resolve/v1/build/torch-cpu/none.py").status == 404
    app.turn(1.0)
    assert keeping.last_used() == {}
    assert ask(app, f"/kernels/{REPO}/resolve/v1/build/torch-cpu/layers.py").status == 200
    app.turn(2.0)
    place = Place("kernel", str(REPO), str(COMMIT), "experimental")
    assert keeping.last_used() == {place: kit.trust.now.date()}
