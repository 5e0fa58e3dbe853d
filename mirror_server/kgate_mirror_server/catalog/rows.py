"""Between the catalog's rows and the records that cross its port; asks and stores, decides nothing.

A row that does not parse was edited by somebody: it is reported in the log and passed over, so
that one bad row hides itself and nothing else.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from sqlalchemy import func, insert, select, update

from kgate_core.clock import read_time, write_time
from kgate_core.digest import Digest
from kgate_core.errors import InvalidInput
from kgate_core.kernel import KernelRef, RepoType, Revision
from kgate_mirror_server.catalog import schema
from kgate_mirror_server.ports import (
    Denial,
    EvidenceKind,
    Publication,
    PublishedVariant,
    ServedFile,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection, RowMapping, Table

T = TypeVar("T")

CHANNEL: Final = "kgate_catalog"
"""On which PostgreSQL tells of changes."""
_log: Final = logging.getLogger(__name__)
_AT_ONCE: Final = 500  # ids in one query; SQLite's own limit on parameters is far higher


def read_publications(
    connection: Connection, *only: ColumnElement[bool]
) -> tuple[Publication, ...]:
    """Return every publication that all conditions fit, once per branch that means it."""
    table = schema.publication
    found = list(
        connection.execute(
            select(table)
            .where(*only)
            .order_by(table.c.repo, table.c.lane, table.c.published_at, table.c.id)
        ).mappings()
    )
    variants = read_variants(connection, [int(row["id"]) for row in found])
    versions: dict[int, list[int | None]] = {}
    for identifier, version in connection.execute(
        select(schema.branch.c.publication_id, schema.branch.c.version)
        .join(table, table.c.id == schema.branch.c.publication_id)
        .where(*only)
        .order_by(schema.branch.c.version)
    ):
        versions.setdefault(int(identifier), []).append(int(version))
    read: list[Publication] = []
    for row in found:
        for version in versions.get(int(row["id"]), [None]):
            parts = variants.get(int(row["id"]), ())
            read += _checked(row, partial(_to_publication, version=version, variants=parts))
    return tuple(read)


def read_variants(
    connection: Connection, publications: Sequence[int]
) -> dict[int, tuple[PublishedVariant, ...]]:
    """Return the variants of these publications by their id, sorted by name."""
    gathered: dict[int, list[PublishedVariant]] = {}
    for start in range(0, len(publications), _AT_ONCE):
        part = publications[start : start + _AT_ONCE]
        table, file = schema.published_variant, schema.served_file
        files: dict[int, list[ServedFile]] = {}
        for row in connection.execute(
            select(file)
            .join(table, table.c.id == file.c.variant_id)
            .where(table.c.publication_id.in_(part))
            .order_by(file.c.variant_id, file.c.path)
        ).mappings():
            files.setdefault(int(row["variant_id"]), []).extend(_checked(row, _to_file))
        for row in connection.execute(
            select(table).where(table.c.publication_id.in_(part)).order_by(table.c.variant)
        ).mappings():
            served = tuple(files.get(int(row["id"]), ()))
            gathered.setdefault(int(row["publication_id"]), []).extend(
                _checked(row, partial(_to_variant, files=served))
            )
    return {identifier: tuple(items) for identifier, items in gathered.items()}


@dataclass(frozen=True, slots=True)
class Tally:
    """How much one lane holds, and when that changed last."""

    kernels: int
    variants: int
    denied: int
    changed_at: datetime | None


def count_lane(connection: Connection, lane: str) -> Tally:
    """Count a lane's repositories, published variants and denials."""
    table, variant, denial = schema.publication, schema.published_variant, schema.denial
    kernels, published = connection.execute(
        select(func.count(table.c.repo.distinct()), func.max(table.c.published_at)).where(
            table.c.lane == lane
        )
    ).one()
    variants = connection.execute(
        select(func.count())
        .select_from(variant.join(table, table.c.id == variant.c.publication_id))
        .where(table.c.lane == lane)
    ).scalar_one()
    denied, refused = connection.execute(
        select(func.count(), func.max(denial.c.denied_at)).where(denial.c.lane == lane)
    ).one()
    # RFC 3339 in UTC to the second: the later text is the later time.
    newest = max((text for text in (published, refused) if text), default=None)
    changed = None if newest is None else read_time(newest, what="catalog")
    return Tally(int(kernels), int(variants), int(denied), changed)


def advance(connection: Connection) -> None:
    """Let everybody who polls see that something changed; whoever listens hears of it at once."""
    table = schema.meta
    connection.execute(update(table).values(generation=table.c.generation + 1))
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_notify(CHANNEL, "")))


def read_denials(connection: Connection) -> tuple[Denial, ...]:
    """Return every denial, sorted by repository, lane, commit and variant."""
    table = schema.denial
    found = connection.execute(
        select(table).order_by(table.c.repo, table.c.lane, table.c.upstream, table.c.variant)
    )
    read: list[Denial] = []
    for row in found.mappings():
        read += _checked(row, _to_denial)
    return tuple(read)


def renew_variant(connection: Connection, publication: int, item: PublishedVariant) -> None:
    """Replace the bundles and evidence of a published variant."""
    table = schema.published_variant
    connection.execute(
        update(table)
        .where(table.c.publication_id == publication, table.c.variant == item.variant)
        .values(
            bundles=[str(digest) for digest in item.bundles],
            evidence=of_evidence(item.evidence),
        )
    )


def insert_variant(connection: Connection, publication: int, item: PublishedVariant) -> None:
    """Insert one variant with its files."""
    result = connection.execute(
        insert(schema.published_variant).values(
            publication_id=publication,
            variant=item.variant,
            manifest=str(item.manifest),
            bundles=[str(digest) for digest in item.bundles],
            evidence=of_evidence(item.evidence),
        )
    )
    identifier = int(result.inserted_primary_key[0])  # type: ignore[index]  # just inserted
    connection.execute(
        insert(schema.served_file),
        [
            {
                "variant_id": identifier,
                "path": file.path,
                "size": file.size,
                "digest": str(file.digest),
                "oid": file.oid,
                "lfs": file.lfs,
            }
            for file in item.files
        ],
    )


def of_denial(denial: Denial) -> dict[str, Any]:
    """Return a denial's column values."""
    return {
        "origin": denial.origin,
        "repo_type": str(denial.repo_type),
        "repo": str(denial.repo),
        "upstream": str(denial.upstream),
        "version": denial.version,
        "lane": denial.lane,
        "variant": denial.variant,
        "manifest": None if denial.manifest is None else str(denial.manifest),
        "reasons": list(denial.reasons),
        "denied_at": write_time(denial.denied_at),
        "evidence": of_evidence(denial.evidence),
    }


def _to_denial(row: RowMapping) -> Denial:
    return Denial(
        origin=row["origin"],
        repo_type=_to_type(row["repo_type"]),
        repo=KernelRef.parse(row["repo"]),
        upstream=Revision(row["upstream"]),
        version=row["version"],
        lane=row["lane"],
        variant=row["variant"],
        manifest=None if row["manifest"] is None else Digest.parse(row["manifest"]),
        reasons=tuple(row["reasons"]),
        denied_at=read_time(row["denied_at"], what="denial"),
        evidence=to_evidence(row["evidence"]),
    )


def is_(table: Table, publication: Publication) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions under which a row is about a publication."""
    return (
        table.c.repo_type == str(publication.repo_type),
        table.c.repo == str(publication.repo),
        table.c.served == str(publication.served),
        table.c.lane == publication.lane,
    )


def facts_of(publication: Publication) -> dict[str, Any]:
    """Return what an auditor wants to know about a change of a publication."""
    return {
        "repo": str(publication.repo),
        "served": str(publication.served),
        "upstream": str(publication.upstream),
        "version": publication.version,
        "lane": publication.lane,
        "manifests": {item.variant: str(item.manifest) for item in publication.variants},
        "bundles": sorted({str(d) for item in publication.variants for d in item.bundles}),
    }


def facts_of_denial(denial: Denial) -> dict[str, Any]:
    """Return what an auditor wants to know about a denial."""
    return {
        "repo": str(denial.repo),
        "upstream": str(denial.upstream),
        "lane": denial.lane,
        "variant": denial.variant,
        "rules": sorted(str(reason.get("rule", "")) for reason in denial.reasons),
    }


def of_evidence(evidence: Mapping[EvidenceKind, Digest]) -> dict[str, str]:
    """Return evidence as JSON."""
    return {str(kind): str(digest) for kind, digest in sorted(evidence.items())}


def to_evidence(data: Mapping[str, str]) -> dict[EvidenceKind, Digest]:
    """Return evidence from JSON; raises InvalidInput for a kind that is not known."""
    try:
        return {EvidenceKind(kind): Digest.parse(digest) for kind, digest in data.items()}
    except ValueError as exc:
        raise InvalidInput(f"catalog: {exc}") from exc


def _checked(row: RowMapping, read: Callable[[RowMapping], T]) -> list[T]:
    try:
        return [read(row)]
    except (InvalidInput, TypeError, AttributeError) as exc:
        _log.error("catalog.row-malformed row=%s reason=%s", dict(row), exc)
        return []


def _to_variant(row: RowMapping, files: tuple[ServedFile, ...]) -> PublishedVariant:
    return PublishedVariant(
        row["variant"],
        Digest.parse(row["manifest"]),
        files,
        tuple(Digest.parse(item) for item in row["bundles"]),
        to_evidence(row["evidence"]),
    )


def _to_publication(
    row: RowMapping, version: int | None, variants: tuple[PublishedVariant, ...]
) -> Publication:
    return Publication(
        origin=row["origin"],
        repo_type=_to_type(row["repo_type"]),
        repo=KernelRef.parse(row["repo"]),
        served=Revision(row["served"]),
        upstream=Revision(row["upstream"]),
        version=version,
        lane=row["lane"],
        variants=variants,
        published_at=read_time(row["published_at"], what="publication"),
        depends=tuple(row["depends"]),
    )


def _to_file(row: RowMapping) -> ServedFile:
    return ServedFile(
        row["path"], int(row["size"]), Digest.parse(row["digest"]), row["oid"], bool(row["lfs"])
    )


def _to_type(text: str) -> RepoType:
    try:
        return RepoType(text)
    except ValueError as exc:
        raise InvalidInput(f"catalog: unknown repository type {text!r}") from exc
