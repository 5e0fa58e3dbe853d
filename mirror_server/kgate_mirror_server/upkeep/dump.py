"""All rows of the catalog as lines of JSON, the same from SQLite and from PostgreSQL.

Format: the first line names the version of the tables; each other line is a row with its table.
They are read back in one transaction, and only into empty tables of the same version.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from alembic.runtime.migration import MigrationContext
from sqlalchemy import func, insert, select, text

from kgate_core.errors import Conflict, InvalidInput
from kgate_mirror_server.catalog import schema
from kgate_mirror_server.catalog.engine import reading, writing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Engine, Table

SCHEMA: Final = "kgate.dev/catalog/v1"
_AT_ONCE: Final = 500  # rows in one insert
_OF_SERVER: Final = frozenset({"meta"})  # tables with a row from the first migration on


def dump(engine: Engine) -> Iterator[bytes]:
    """Yield one line after the other, all of one state of the database."""
    with reading(engine) as connection:
        head = {"schema": SCHEMA, "tables": _revision(connection)}
        yield json.dumps(head, sort_keys=True).encode() + b"\n"
        for table in schema.metadata.sorted_tables:
            columns = [table.c[name] for name in sorted(table.c.keys())]
            for row in connection.execute(select(*columns).order_by(*table.primary_key)):
                line = {"table": table.name, "row": dict(row._mapping)}  # noqa: SLF001  # its API
                yield json.dumps(line, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def is_empty(engine: Engine) -> bool:
    """Return whether nothing was ever kept in this database."""
    with reading(engine) as connection:
        return not any(
            connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in schema.metadata.sorted_tables
            if table.name not in _OF_SERVER
        )


def load(engine: Engine, lines: Iterator[bytes], *, later: int) -> None:
    """Fill empty tables; raises Conflict if they are not, InvalidInput for another version.

    The generation becomes greater by `later`, so that every reader notices.
    """
    head = json.loads(next(lines, b"{}"))
    if head.get("schema") != SCHEMA:
        raise InvalidInput("catalog.jsonl: not a dump of a catalog that this version reads")
    if not is_empty(engine):
        raise Conflict("the database is not empty", hint="a backup goes into an empty one only")
    with writing(engine, durable=True) as connection:
        if head.get("tables") != (here := _revision(connection)):
            raise InvalidInput(
                f"catalog.jsonl has tables of version {head.get('tables')}, this kgate {here}",
                hint="restore with the kgate that made the backup, then upgrade",
            )
        for name in _OF_SERVER:
            connection.execute(schema.metadata.tables[name].delete())
        for table, rows in _grouped(lines):
            connection.execute(insert(table), rows)
        meta = schema.meta
        connection.execute(meta.update().values(generation=meta.c.generation + max(later, 1)))
        if connection.dialect.name == "postgresql":
            _count_on(connection)


def _grouped(lines: Iterator[bytes]) -> Iterator[tuple[Table, list[dict[str, Any]]]]:
    waiting: list[dict[str, Any]] = []
    current: Table | None = None
    for line in lines:
        item = json.loads(line)
        table = schema.metadata.tables.get(item["table"])
        if table is None:
            raise InvalidInput(f"catalog.jsonl: unknown table {item['table']!r}")
        if current is not None and (table is not current or len(waiting) >= _AT_ONCE):
            yield current, waiting
            waiting = []
        current = table
        waiting.append(item["row"])
    if current is not None and waiting:
        yield current, waiting


def _count_on(connection: Connection) -> None:
    """Let PostgreSQL's counters go on after the greatest id that was put in."""
    for table in schema.metadata.sorted_tables:
        column = table.autoincrement_column
        if column is None or table.name in _OF_SERVER:
            continue
        counter = connection.execute(
            text("SELECT pg_get_serial_sequence(:table, :column)"),
            {"table": table.name, "column": column.name},
        ).scalar()
        if counter is not None:
            highest = connection.execute(select(func.max(column))).scalar()
            if highest is not None:
                connection.execute(
                    text("SELECT setval(:counter, :highest)"),
                    {"counter": counter, "highest": highest},
                )


def _revision(connection: Connection) -> str:
    return str(MigrationContext.configure(connection).get_current_revision())
