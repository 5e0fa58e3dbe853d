"""The catalog in SQL: one synchronous layer for SQLite and PostgreSQL.

Each method is one transaction. It keeps what it is told and refuses contradictions; whether a
publication is backed by evidence is for its writer to ensure and for every reader to check.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, insert, select, update

from kgate_core.clock import write_time
from kgate_core.digest import Digest
from kgate_core.errors import Conflict
from kgate_mirror_server.catalog import rows, schema
from kgate_mirror_server.catalog.engine import open_engine, reading, writing
from kgate_mirror_server.ports import IntakeState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Engine

    from kgate_core.evidence import Facts
    from kgate_core.kernel import KernelId, KernelRef
    from kgate_mirror_server.catalog.rows import Tally
    from kgate_mirror_server.ports import Denial, EvidenceKind, Publication

    Noted = Callable[[Connection, str, Facts], None]


def unnoted(_connection: Connection, _action: str, _facts: Facts) -> None:
    """Keep no record of changes, as tests and readers do."""


@dataclass(frozen=True, slots=True)
class KeptEvidence:
    """What is kept about one variant on its way to publication."""

    manifest: Digest
    evidence: Mapping[EvidenceKind, Digest]
    state: IntakeState = IntakeState.DECIDED


class SqlCatalog:
    """A Catalog behind a database URL, such as `sqlite:///kgate.db` or `postgresql://…`."""

    def __init__(self, url: str, noted: Noted = unnoted) -> None:
        """Open the database and bring its tables up to date; raises UpstreamError, Conflict.

        `noted` is told of each change inside its transaction: the audit log's way in.
        """
        self._engine = open_engine(url)
        self._noted = noted
        self._read: tuple[int, tuple[Publication, ...]] | None = None

    @property
    def engine(self) -> Engine:
        """The opened database, for what else is kept in it."""
        return self._engine

    def close(self) -> None:
        """Give all connections back."""
        self._engine.dispose()

    def publish(self, publication: Publication) -> None:
        """Publish; raises Conflict if this revision is published otherwise in this lane.

        A denial of one of its variants ends. If the publication has a version, `vN` means it
        from now on, also if it was published before. New bundles for the same bytes replace the
        old ones.
        """
        with writing(self._engine, durable=True) as connection:
            self._check_origin(connection, publication)
            found = self._find(connection, publication)
            if found is None:
                identifier, changed = self._insert(connection, publication), True
            else:
                identifier, changed = found, self._renew(connection, publication, found)
            changed |= self._point_branch(connection, publication, identifier)
            changed |= self._lift_denials(connection, publication)
            if changed:
                rows.advance(connection)
                self._noted(connection, "publish", rows.facts_of(publication))

    def retire(self, publication: Publication) -> bool:
        """Take a publication away for good; returns whether it was there. Its blobs stay."""
        table = schema.publication
        with writing(self._engine, durable=True) as connection:
            result = connection.execute(delete(table).where(*rows.is_(table, publication)))
            if not result.rowcount:
                return False
            connection.execute(
                delete(schema.last_used).where(*rows.is_(schema.last_used, publication))
            )
            rows.advance(connection)
            self._noted(connection, "retire", rows.facts_of(publication))
        return True

    def deny(self, denial: Denial) -> None:
        """Record a denial, replacing an earlier one for the same variant, revision and lane."""
        table = schema.denial
        with writing(self._engine) as connection:
            connection.execute(
                delete(table).where(
                    table.c.origin == denial.origin,
                    table.c.repo_type == str(denial.repo_type),
                    table.c.repo == str(denial.repo),
                    table.c.upstream == str(denial.upstream),
                    table.c.lane == denial.lane,
                    table.c.variant == denial.variant,
                )
            )
            connection.execute(insert(table).values(rows.of_denial(denial)))
            rows.advance(connection)
            self._noted(connection, "deny", rows.facts_of_denial(denial))

    def publications(self) -> Sequence[Publication]:
        """Return all publications, sorted by repository, lane and time.

        One that several version branches mean comes once for each; one that none means any more
        comes with the version None. Read again only when the generation has changed: a sync asks
        for each of its pins.
        """
        with reading(self._engine) as connection:
            generation = _generation(connection)
            if self._read is None or self._read[0] != generation:
                self._read = (generation, tuple(rows.read_publications(connection)))
            return self._read[1]

    def publications_of(self, repo: KernelRef, lane: str) -> Sequence[Publication]:
        """Return the publications of one repository in one lane, oldest first."""
        table = schema.publication
        with reading(self._engine) as connection:
            return rows.read_publications(
                connection, table.c.repo == str(repo), table.c.lane == lane
            )

    def tally(self, lane: str) -> Tally:
        """Count what a lane holds, without reading it."""
        with reading(self._engine) as connection:
            return rows.count_lane(connection, lane)

    def denials(self) -> Sequence[Denial]:
        """Return all denials that stand, sorted by repository, lane and variant."""
        with reading(self._engine) as connection:
            return rows.read_denials(connection)

    def generation(self) -> int:
        """Return a number that grows with every change."""
        with reading(self._engine) as connection:
            return _generation(connection)

    def keep_evidence(
        self,
        kernel: KernelId,
        lane: str,
        manifest: Digest,
        evidence: Mapping[EvidenceKind, Digest],
        state: IntakeState,
        now: datetime,
    ) -> None:
        """Keep what is known about a variant as it will be served, replacing what was kept."""
        table = schema.intake
        with writing(self._engine) as connection:
            connection.execute(
                delete(table).where(table.c.kernel == kernel.purl, table.c.lane == lane)
            )
            connection.execute(
                insert(table).values(
                    kernel=kernel.purl,
                    lane=lane,
                    manifest=str(manifest),
                    evidence=rows.of_evidence(evidence),
                    state=str(state),
                    changed_at=write_time(now),
                )
            )

    def evidence(self, kernel: KernelId, lane: str) -> KeptEvidence | None:
        """Return what is kept about a variant as it will be served, or None."""
        table = schema.intake
        with reading(self._engine) as connection:
            row = connection.execute(
                select(table).where(table.c.kernel == kernel.purl, table.c.lane == lane)
            ).first()
        if row is None:
            return None
        return KeptEvidence(
            Digest.parse(row.manifest), rows.to_evidence(row.evidence), IntakeState(row.state)
        )

    def _check_origin(self, connection: Connection, publication: Publication) -> None:
        # Clients ask by repository name alone: one name may not mean two upstreams in a lane.
        table = schema.publication
        other = connection.execute(
            select(table.c.origin)
            .where(
                table.c.repo_type == str(publication.repo_type),
                table.c.repo == str(publication.repo),
                table.c.lane == publication.lane,
                table.c.origin != publication.origin,
            )
            .limit(1)
        ).scalar()
        if other is not None:
            raise Conflict(
                f"{publication.repo} in lane {publication.lane} comes from {other},"
                f" not from {publication.origin}",
                hint="pin it in another lane, or under the name of its own organisation",
            )

    def _find(self, connection: Connection, publication: Publication) -> int | None:
        table = schema.publication
        row = connection.execute(
            select(table.c.id, table.c.upstream).where(
                table.c.repo_type == str(publication.repo_type),
                table.c.repo == str(publication.repo),
                table.c.served == str(publication.served),
                table.c.lane == publication.lane,
            )
        ).first()
        if row is None:
            return None
        if row.upstream != str(publication.upstream):
            raise self._conflict(publication, "from another upstream commit")
        return int(row.id)

    def _renew(self, connection: Connection, publication: Publication, identifier: int) -> bool:
        known = rows.read_variants(connection, [identifier]).get(identifier, ())
        # The manifest digest binds every path and byte of a variant.
        before = {item.variant: item.manifest for item in known}
        if before != {item.variant: item.manifest for item in publication.variants}:
            raise self._conflict(publication, "with other variants")
        signed = {item.variant: (item.bundles, dict(item.evidence)) for item in known}
        changed = False
        for item in publication.variants:
            if signed[item.variant] != (item.bundles, dict(item.evidence)):
                rows.renew_variant(connection, identifier, item)
                changed = True
        return changed

    def _conflict(self, publication: Publication, how: str) -> Conflict:
        return Conflict(
            f"{publication.repo}@{publication.served.short} is already published in lane"
            f" {publication.lane} {how}",
            hint="a served revision never changes: publish a new one",
        )

    def _insert(self, connection: Connection, publication: Publication) -> int:
        result = connection.execute(
            insert(schema.publication).values(
                origin=publication.origin,
                repo_type=str(publication.repo_type),
                repo=str(publication.repo),
                served=str(publication.served),
                upstream=str(publication.upstream),
                lane=publication.lane,
                published_at=write_time(publication.published_at),
                depends=list(publication.depends),
            )
        )
        identifier = int(result.inserted_primary_key[0])  # type: ignore[index]  # just inserted
        for item in publication.variants:
            rows.insert_variant(connection, identifier, item)
        return identifier

    def _point_branch(
        self, connection: Connection, publication: Publication, identifier: int
    ) -> bool:
        if publication.version is None:
            return False
        table = schema.branch
        key: dict[str, Any] = {
            "repo_type": str(publication.repo_type),
            "repo": str(publication.repo),
            "lane": publication.lane,
            "version": publication.version,
        }
        same = [table.c[name] == value for name, value in key.items()]
        now = connection.execute(select(table.c.publication_id).where(*same)).scalar()
        if now == identifier:
            return False
        if now is None:
            connection.execute(insert(table).values(publication_id=identifier, **key))
        else:
            connection.execute(update(table).where(*same).values(publication_id=identifier))
        return True

    def _lift_denials(self, connection: Connection, publication: Publication) -> bool:
        table = schema.denial
        result = connection.execute(
            delete(table).where(
                table.c.repo_type == str(publication.repo_type),
                table.c.repo == str(publication.repo),
                table.c.upstream == str(publication.upstream),
                table.c.lane == publication.lane,
                table.c.variant.in_([item.variant for item in publication.variants]),
            )
        )
        return result.rowcount > 0


def _generation(connection: Connection) -> int:
    return int(connection.execute(select(schema.meta.c.generation)).scalar_one())
