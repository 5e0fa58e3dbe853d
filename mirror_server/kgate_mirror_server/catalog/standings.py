"""How each pin came out the last time, beside a digest of all that this rests on.

A shortcut and nothing more: without a row, or with another digest, everything is looked at again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import delete, insert, select

from kgate_mirror_server.catalog import schema
from kgate_mirror_server.catalog.engine import reading, writing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Engine

    from kgate_core.evidence import Facts


def read_standings(engine: Engine) -> dict[str, tuple[str, Facts]]:
    """Return digest and outcome of every pin."""
    table = schema.standing
    with reading(engine) as connection:
        rows = connection.execute(select(table.c.pin, table.c.rests_on, table.c.outcome))
        return {str(row.pin): (str(row.rests_on), row.outcome) for row in rows}


def read_intake(engine: Engine) -> dict[tuple[str, str], dict[str, str]]:
    """Return the evidence of everything that came in, by package URL and lane."""
    table = schema.intake
    with reading(engine) as connection:
        rows = connection.execute(select(table.c.kernel, table.c.lane, table.c.evidence))
        return {(str(row.kernel), str(row.lane)): dict(row.evidence) for row in rows}


def keep_standings(engine: Engine, new: Mapping[str, tuple[str, Facts]]) -> None:
    """Keep outcomes, replacing earlier ones of the same pins."""
    if not new:
        return
    table = schema.standing
    with writing(engine) as connection:
        for pin in new:
            connection.execute(delete(table).where(table.c.pin == pin))
        connection.execute(
            insert(table),
            [
                {"pin": pin, "rests_on": digest, "outcome": dict(outcome)}
                for pin, (digest, outcome) in new.items()
            ],
        )
