"""All feeds of a site as one file: every document as it came, in one order.

Format: `kgate.dev/feed-snapshot/v1`, canonical JSON. Its digest names it in reports and decisions.
Documents are kept as texts, so that whoever gets the file can check signatures and pins again.
Whether a source may be believed was decided by whoever put it in; it says by which means.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from kgate_core import strictjson
from kgate_core.clock import read_time, write_time
from kgate_core.digest import Digest
from kgate_core.errors import InvalidInput
from kgate_scanner.advisories.collecting import MAX_TOTAL, digest_of
from kgate_scanner.advisories.documents import read_document
from kgate_scanner.advisories.matching import Feed

if TYPE_CHECKING:
    from datetime import datetime

    from kgate_scanner.advisories.model import Advisory, VexStatement

SCHEMA: Final = "kgate.dev/feed-snapshot/v1"
MAX_BYTES: Final = 2 * MAX_TOTAL  # bytes; texts grow when they are quoted
MAX_SOURCES: Final = 64


class Means(StrEnum):
    """By which means a source came to be believed."""

    SIGNED = "signed"
    """By a key of the role `feed`."""
    PINNED = "pinned"
    """By a digest in kgate.yaml."""
    ACCEPTED = "accepted"
    """By a person who gave a reason."""


@dataclass(frozen=True, slots=True)
class Source:
    """One feed under its name."""

    name: str
    means: Means
    detail: str
    """Hint of the key, or the reason that a person gave."""
    sequence: int
    """Number of a signed feed, from 1; 0 for others."""
    date: datetime
    """When it was issued, or when the newest of its documents was changed."""
    documents: tuple[tuple[str, str], ...]
    """Name and text of each."""

    @property
    def digest(self) -> Digest:
        """Digest over its documents, as `collect` gives it."""
        return digest_of(tuple(text.encode() for _, text in self.documents))

    def contents(self) -> tuple[tuple[Advisory, ...], tuple[VexStatement, ...]]:
        """Read every document; raises InvalidInput."""
        advisories: list[Advisory] = []
        statements: list[VexStatement] = []
        for name, text in self.documents:
            content = read_document(text.encode(), what=f"{self.name}: {name}")
            advisories += content.advisories
            statements += content.statements
        return tuple(advisories), tuple(statements)

    def to_json(self) -> dict[str, Any]:
        """Return the source as a JSON object."""
        return {
            "name": self.name,
            "means": str(self.means),
            "detail": self.detail,
            "sequence": self.sequence,
            "date": write_time(self.date),
            "documents": [{"name": name, "text": text} for name, text in self.documents],
        }


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The feeds of a site at one moment."""

    sources: tuple[Source, ...] = ()

    def source(self, name: str) -> Source | None:
        """Return the source of a name, or None."""
        return next((item for item in self.sources if item.name == name), None)

    def with_source(self, source: Source) -> Snapshot:
        """Return the snapshot with a source put in or replaced; raises InvalidInput if too many."""
        others = [item for item in self.sources if item.name != source.name]
        if len(others) >= MAX_SOURCES:
            raise InvalidInput(f"more than {MAX_SOURCES} feeds")
        return replace(self, sources=tuple(sorted([*others, source], key=lambda one: one.name)))

    def to_bytes(self) -> bytes:
        """Return canonical bytes."""
        return strictjson.dumps(
            {"schema": SCHEMA, "sources": [item.to_json() for item in self.sources]}
        )

    @classmethod
    def parse(cls, data: bytes) -> Snapshot:
        """Read what `to_bytes` wrote; raises InvalidInput."""
        what = "feed snapshot"
        document = strictjson.loads(data, what=what, max_bytes=MAX_BYTES)
        schema = strictjson.take(document, "schema", str, what=what)
        if schema != SCHEMA:
            raise InvalidInput(
                f"{what}: unknown schema {schema!r}; this version reads {SCHEMA}",
                hint="it was written by a newer kgate: upgrade this one",
            )
        found = tuple(
            _read_source(item, what)
            for item in strictjson.take(document, "sources", list, what=what)
        )
        if [item.name for item in found] != sorted({item.name for item in found}):
            raise InvalidInput(f"{what}: its sources are not in order, or one is there twice")
        return cls(found)

    def feed(self) -> Feed:
        """Return everything to compare with; raises InvalidInput.

        Its date is that of its oldest source that has advisories: the weakest link.
        """
        advisories: list[tuple[str, Advisory]] = []
        statements: list[VexStatement] = []
        dates = []
        for source in self.sources:
            found, said = source.contents()
            advisories += ((source.name, item) for item in found)
            statements += said
            if found:
                dates.append(source.date)
        if not dates:
            dates = [source.date for source in self.sources]
        if not dates:
            raise InvalidInput("the feed snapshot is empty")
        digest = Digest.of(self.to_bytes())
        return Feed(digest, min(dates), tuple(advisories), tuple(statements))


def _read_source(data: strictjson.JsonValue, what: str) -> Source:
    means = strictjson.take(data, "means", str, what=what)
    if means not in set(Means):
        raise InvalidInput(f"{what}: unknown means {means!r}")
    return Source(
        strictjson.take(data, "name", str, what=what),
        Means(means),
        strictjson.take(data, "detail", str, what=what),
        strictjson.take(data, "sequence", int, what=what),
        read_time(strictjson.take(data, "date", str, what=what), what=what),
        tuple(
            (
                strictjson.take(item, "name", str, what=what),
                strictjson.take(item, "text", str, what=what),
            )
            for item in strictjson.take(data, "documents", list, what=what)
        ),
    )
