"""Results of qualifications that were submitted, by the manifest that they are about.

The newest of a manifest counts; a few older ones are kept. Whether a result may be submitted, and
what a policy makes of it, is said elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import delete, insert, select

from kgate_core.clock import read_time, write_time
from kgate_core.digest import Digest
from kgate_core.kernel import KernelId
from kgate_mirror_server.catalog import schema
from kgate_mirror_server.catalog.engine import reading, writing
from kgate_mirror_server.catalog.sql import unnoted

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Engine, Row

    from kgate_mirror_server.catalog.sql import Noted

KEPT: Final = 20  # results of one manifest


@dataclass(frozen=True, slots=True)
class Submitted:
    """One result with who submitted it."""

    manifest: Digest
    submitter: str
    document: bytes
    received_at: datetime


class SqlQualifications:
    """The results in the catalog's database."""

    def __init__(self, engine: Engine, noted: Noted = unnoted) -> None:
        self._engine = engine
        self._noted = noted

    def places(self, manifest: Digest) -> tuple[tuple[KernelId, str], ...]:
        """Return every kernel and lane in which these bytes came in; empty if unknown."""
        table = schema.intake
        with reading(self._engine) as connection:
            rows = connection.execute(
                select(table.c.kernel, table.c.lane).where(table.c.manifest == str(manifest))
            )
            return tuple((KernelId.parse_purl(row.kernel), str(row.lane)) for row in rows)

    def add(self, item: Submitted) -> Digest:
        """Keep a result; the same again is no change. Returns the digest of its bytes."""
        table = schema.qualification
        digest = Digest.of(item.document)
        same = table.c.manifest == str(item.manifest)
        with writing(self._engine, durable=True) as connection:
            connection.execute(delete(table).where(table.c.id == str(digest)))
            connection.execute(
                insert(table).values(
                    id=str(digest),
                    manifest=str(item.manifest),
                    submitter=item.submitter,
                    document=item.document.decode("utf-8"),
                    received_at=write_time(item.received_at),
                )
            )
            newest = select(table.c.id).where(same).order_by(table.c.received_at.desc()).limit(KEPT)
            kept = [row.id for row in connection.execute(newest)]
            connection.execute(delete(table).where(same, table.c.id.not_in([*kept, str(digest)])))
            facts = {"manifest": str(item.manifest), "submitter": item.submitter}
            self._noted(connection, "qualification", {**facts, "result": str(digest)})
        return digest

    def manifests(self) -> frozenset[str]:
        """Return the digests of all bytes that there are results about."""
        with reading(self._engine) as connection:
            rows = connection.execute(select(schema.qualification.c.manifest).distinct())
            return frozenset(str(row.manifest) for row in rows)

    def newest(self, manifest: Digest) -> Submitted | None:
        """Return the result that counts for these bytes, or None."""
        table = schema.qualification
        with reading(self._engine) as connection:
            row = connection.execute(
                select(table)
                .where(table.c.manifest == str(manifest))
                .order_by(table.c.received_at.desc(), table.c.id)
                .limit(1)
            ).first()
        return None if row is None else _of(row)


def _of(row: Row[tuple[object, ...]]) -> Submitted:
    return Submitted(
        Digest.parse(row.manifest),
        row.submitter,
        row.document.encode("utf-8"),
        read_time(row.received_at, what="qualification"),
    )
