"""What keeps a publication: holds that a person placed, and the day on which it was last used.

Also reads how far each variant on its way in has come. What follows from it, which publication may
go and which blobs nobody needs, is decided in `retention` and `garbage`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import delete, insert, select, update

from kgate_core.clock import read_time, write_time
from kgate_core.digest import Digest
from kgate_core.errors import InvalidInput
from kgate_core.kernel import KernelRef, RepoType, Revision
from kgate_mirror_server.catalog import rows, schema
from kgate_mirror_server.catalog.engine import reading, writing
from kgate_mirror_server.catalog.sql import unnoted
from kgate_mirror_server.ports import IntakeState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from sqlalchemy import Engine, Row, Table

    from kgate_mirror_server.catalog.sql import Noted
    from kgate_mirror_server.ports import EvidenceKind, Publication

_MAX_REASON: Final = 500  # characters


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """What names a publication: type, repository, served revision and lane."""

    repo_type: str
    repo: str
    served: str
    lane: str

    @classmethod
    def of(cls, item: Publication) -> Place:
        """Return a publication's own."""
        return cls(str(item.repo_type), str(item.repo), str(item.served), item.lane)

    def __str__(self) -> str:
        return f"{self.repo}@{self.served[:12]} in lane {self.lane}"


@dataclass(frozen=True, slots=True)
class Hold:
    """A publication that nothing may remove."""

    place: Place
    reason: str
    held_by: str
    held_at: datetime


@dataclass(frozen=True, slots=True)
class Arriving:
    """A variant on its way in, or what is known since it came."""

    kernel: str
    """Package URL as it will be served."""
    lane: str
    manifest: Digest
    evidence: Mapping[EvidenceKind, Digest]
    state: IntakeState
    changed_at: datetime


class SqlKeeping:
    """Holds, days of use and the intake in the catalog's database."""

    def __init__(self, engine: Engine, noted: Noted = unnoted) -> None:
        self._engine = engine
        self._noted = noted

    def hold(
        self, publications: Iterable[Publication], reason: str, by: str, *, now: datetime
    ) -> tuple[Hold, ...]:
        """Place holds, replacing the reason of those that stand; raises InvalidInput."""
        if not reason.strip() or len(reason) > _MAX_REASON:
            raise InvalidInput(f"a hold needs a reason of up to {_MAX_REASON} characters")
        held = tuple(
            Hold(Place.of(item), reason, by, now)
            for item in {Place.of(item): item for item in publications}.values()
        )
        table = schema.hold
        with writing(self._engine, durable=True) as connection:
            for item in held:
                connection.execute(delete(table).where(*_at(table, item.place)))
                connection.execute(
                    insert(table).values(
                        **_columns(item.place),
                        reason=reason,
                        held_by=by,
                        held_at=write_time(now),
                    )
                )
                self._noted(connection, "hold", {**_columns(item.place), "reason": reason})
        return held

    def release(self, publications: Iterable[Publication]) -> tuple[Place, ...]:
        """End the holds on these publications; returns those that stood."""
        released = []
        with writing(self._engine, durable=True) as connection:
            for place in dict.fromkeys(Place.of(item) for item in publications):
                if connection.execute(delete(schema.hold).where(*_at(schema.hold, place))).rowcount:
                    released.append(place)
                    self._noted(connection, "release", _columns(place))
        return tuple(released)

    def holds(self) -> tuple[Hold, ...]:
        """Return all holds, sorted by what they hold."""
        with reading(self._engine) as connection:
            found = [
                Hold(
                    _place(row),
                    row.reason,
                    row.held_by,
                    read_time(row.held_at, what="hold"),
                )
                for row in connection.execute(select(schema.hold))
            ]
        return tuple(sorted(found, key=lambda item: item.place))

    def use(self, places: Iterable[Place], day: date) -> None:
        """Note that these publications were used on a day; an earlier day changes nothing."""
        table = schema.last_used
        with writing(self._engine) as connection:
            for place in places:
                before = connection.execute(select(table.c.day).where(*_at(table, place))).scalar()
                if before is None:
                    connection.execute(insert(table).values(**_columns(place), day=day.isoformat()))
                elif before < day.isoformat():
                    connection.execute(
                        update(table).where(*_at(table, place)).values(day=day.isoformat())
                    )

    def last_used(self) -> Mapping[Place, date]:
        """Return the last day of use of each publication that was ever used."""
        with reading(self._engine) as connection:
            return {
                _place(row): date.fromisoformat(row.day)
                for row in connection.execute(select(schema.last_used))
            }

    def arriving(self) -> tuple[Arriving, ...]:
        """Return all of the intake."""
        with reading(self._engine) as connection:
            return tuple(
                Arriving(
                    row.kernel,
                    row.lane,
                    Digest.parse(row.manifest),
                    rows.to_evidence(row.evidence),
                    IntakeState(row.state),
                    read_time(row.changed_at, what="intake"),
                )
                for row in connection.execute(select(schema.intake))
            )

    def forget(self, items: Iterable[Arriving]) -> None:
        """Take rows out of the intake, unless something changed them meanwhile."""
        table = schema.intake
        with writing(self._engine) as connection:
            for item in items:
                connection.execute(
                    delete(table).where(
                        table.c.kernel == item.kernel,
                        table.c.lane == item.lane,
                        table.c.changed_at == write_time(item.changed_at),
                    )
                )


def _columns(place: Place) -> dict[str, Any]:
    return {
        "repo_type": place.repo_type,
        "repo": place.repo,
        "served": place.served,
        "lane": place.lane,
    }


def _at(table: Table, place: Place) -> list[Any]:
    return [table.c[name] == value for name, value in _columns(place).items()]


def _place(row: Row[Any]) -> Place:
    # Parsed, so that a row that somebody broke is an error and not a name.
    return Place(
        str(RepoType(row.repo_type)),
        str(KernelRef.parse(row.repo)),
        str(Revision(row.served)),
        row.lane,
    )
