"""The audit log: who changed what and when, each entry naming the digest of the one before it.

An entry is canonical JSON; its digest covers all of it, the digest before it too. So an entry that
was edited, moved or taken out of the middle is found by `check`. That entries are missing at the
end only an anchor tells that somebody kept elsewhere: a backup, an export, a signed head. Whoever
owns the database can still write a whole new log; the anchors then differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import insert, select, text

from kgate_core import strictjson
from kgate_core.clock import read_time, write_time
from kgate_core.digest import Digest
from kgate_core.errors import IntegrityError, InvalidInput
from kgate_mirror_server.catalog import schema
from kgate_mirror_server.catalog.engine import reading, writing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime

    from sqlalchemy import Connection, Engine

    from kgate_core.evidence import Facts

START: Final = ""
"""What the first entry names as the one before it."""
_WRITING: Final = 0x6B67617465_03  # advisory lock: one entry after the other


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One line of the log."""

    sequence: int
    """Counts from 1 without gaps."""
    at: datetime
    action: str
    """The command, such as `promote`, or what it did to the catalog: publish, deny, retire."""
    who: Mapping[str, str]
    """User and host, the CI job's own identity where there is one, keys by their hint."""
    what: Mapping[str, Any]
    previous: str
    """Digest of the entry before it."""

    def to_bytes(self) -> bytes:
        """Return the bytes that are digested and stored."""
        return strictjson.dumps(
            {
                "sequence": self.sequence,
                "at": write_time(self.at),
                "action": self.action,
                "who": dict(self.who),
                "what": dict(self.what),
                "previous": self.previous,
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> AuditEntry:
        """Read what `to_bytes` wrote; raises InvalidInput."""
        what = "audit entry"
        found = strictjson.loads(data, what=what)
        return cls(
            strictjson.take(found, "sequence", int, what=what),
            read_time(strictjson.take(found, "at", str, what=what), what=what),
            strictjson.take(found, "action", str, what=what),
            strictjson.take(found, "who", dict, what=what),
            strictjson.take(found, "what", dict, what=what),
            strictjson.take(found, "previous", str, what=what),
        )


@dataclass(frozen=True, slots=True)
class Head:
    """Where the log ends."""

    sequence: int = 0
    digest: str = START


class AuditLog:
    """The log in the catalog's database, written in the name of one actor."""

    def __init__(
        self, engine: Engine, who: Callable[[], Mapping[str, str]], clock: Callable[[], datetime]
    ) -> None:
        self._engine = engine
        self._who = who
        self._clock = clock

    def add(self, action: str, what: Facts) -> None:
        """Append one entry in a transaction of its own."""
        with writing(self._engine, durable=True) as connection:
            self.note(connection, action, what)

    def note(self, connection: Connection, action: str, what: Facts) -> None:
        """Append one entry inside somebody's transaction: both happen or neither."""
        if connection.dialect.name == "postgresql":
            # Readers go on; two writers would otherwise both follow the same entry.
            # Not the table's own lock: that would need the right to change what stands there.
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _WRITING})
        before = _head(connection)
        entry = AuditEntry(
            before.sequence + 1, self._clock(), action, self._who(), what, before.digest
        )
        data = entry.to_bytes()
        connection.execute(
            insert(schema.audit).values(
                sequence=entry.sequence, entry=data.decode(), digest=str(Digest.of(data))
            )
        )

    def head(self) -> Head:
        """Return where the log ends."""
        with reading(self._engine) as connection:
            return _head(connection)

    def at(self, sequence: int) -> Head | None:
        """Return where the log ended after so many entries, or None if it never had as many."""
        if sequence == 0:
            return Head()
        table = schema.audit
        with reading(self._engine) as connection:
            digest = connection.execute(
                select(table.c.digest).where(table.c.sequence == sequence)
            ).scalar()
        return None if digest is None else Head(sequence, str(digest))

    def entries(self) -> list[tuple[bytes, str]]:
        """Return every entry as stored with its digest, in order; nothing is checked."""
        table = schema.audit
        with reading(self._engine) as connection:
            found = connection.execute(select(table).order_by(table.c.sequence))
            return [(row.entry.encode(), row.digest) for row in found]


def check_chain(
    entries: Iterable[tuple[bytes, str]], anchors: Iterable[Head] = ()
) -> tuple[AuditEntry, ...]:
    """Return all entries if each follows the one before and every anchor is met.

    Raises IntegrityError naming the first entry that was edited, moved, added or taken away.
    """
    read: list[AuditEntry] = []
    heads = {0: START}
    for number, (data, digest) in enumerate(entries, start=1):
        what = f"entry {number} of the audit log"
        hint = "restore the database from a backup, and ask who may write to it"
        if str(Digest.of(data)) != digest:
            raise IntegrityError(f"{what} was edited: its digest is another", hint=hint)
        try:
            entry = AuditEntry.parse(data)
        except InvalidInput as exc:
            raise IntegrityError(f"{what} cannot be read: {exc.message}", hint=hint) from exc
        if entry.sequence != number:
            raise IntegrityError(f"{what} is missing: number {entry.sequence} follows", hint=hint)
        if entry.previous != heads[number - 1]:
            raise IntegrityError(f"{what} does not follow the entry before it", hint=hint)
        heads[number] = digest
        read.append(entry)
    for anchor in anchors:
        if anchor.sequence not in heads:
            raise IntegrityError(
                f"the audit log ends at entry {len(read)}, it had {anchor.sequence}",
                hint="entries were taken off its end, or an older database was put back",
            )
        if heads[anchor.sequence] != anchor.digest:
            raise IntegrityError(
                f"entry {anchor.sequence} of the audit log is not the one that was there before",
                hint="the log was written anew",
            )
    return tuple(read)


def _head(connection: Connection) -> Head:
    table = schema.audit
    row = connection.execute(
        select(table.c.sequence, table.c.digest).order_by(table.c.sequence.desc()).limit(1)
    ).first()
    return Head() if row is None else Head(int(row.sequence), str(row.digest))
