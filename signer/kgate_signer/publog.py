"""The publication log: every publication as a signed entry that names the one before it.

An entry ties what clients see (repository, served revision, lane) to the upstream commit and to
each variant's manifest. Entries are only appended; the digest of the newest stands in the
timestamp role and in what pods report, so a mirror that shows different histories, or an older
one, is found out. The log proves order and completeness; whether something may run is in the
decisions. Nothing is stored here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from kgate_core import strictjson
from kgate_core.bundle import Bundle
from kgate_core.clock import read_time, write_time
from kgate_core.digest import Digest
from kgate_core.errors import IntegrityError, InvalidInput
from kgate_core.kernel import KernelRef, RepoType, Revision, check_origin
from kgate_core.statement import PAYLOAD_TYPE, Statement, Subject
from kgate_signer.sign import sign_statement

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from kgate_core.keys import PublicKey
    from kgate_signer.keys import KeyProvider

PREDICATE_TYPE: Final = "https://kgate.dev/publication/v1"
EMPTY: Final = ""
"""Head of a log without entries, as a new site's timestamp carries it."""


@dataclass(frozen=True, slots=True)
class Published:
    """What one publication makes visible to the clients of a lane."""

    origin: str
    repo_type: RepoType
    repo: KernelRef
    served: Revision
    """The revision that clients see."""
    upstream: Revision
    version: int | None
    """N if clients may ask for `vN`."""
    lane: str
    variants: Mapping[str, Digest]
    """Variant name to manifest digest."""
    published_at: datetime


@dataclass(frozen=True, slots=True)
class Entry:
    """A publication in its place in the log; `sequence` counts from 1."""

    sequence: int
    previous: str
    """Head of the log before this entry."""
    published: Published

    def to_statement(self) -> Statement:
        """Return the statement to sign; its subjects are the variants' manifests."""
        item = self.published
        subjects = tuple(Subject(name, digest) for name, digest in sorted(item.variants.items()))
        predicate: dict[str, Any] = {
            "sequence": self.sequence,
            "previous": self.previous,
            "origin": item.origin,
            "repoType": str(item.repo_type),
            "repo": str(item.repo),
            "servedRevision": str(item.served),
            "upstreamRevision": str(item.upstream),
            "version": item.version,
            "lane": item.lane,
            "publishedAt": write_time(item.published_at),
        }
        return Statement.of(subjects, PREDICATE_TYPE, predicate)

    @classmethod
    def from_statement(cls, statement: Statement) -> Entry:
        """Read what `to_statement` wrote; raises InvalidInput."""
        what = "log entry"
        if statement.predicate_type != PREDICATE_TYPE:
            raise InvalidInput(f"{what}: it is a {statement.predicate_type}")
        data = statement.predicate
        repo_type = strictjson.take(data, "repoType", str, what=what)
        version = data.get("version")
        if repo_type not in set(RepoType) or not (version is None or type(version) is int):
            raise InvalidInput(f"{what}: unknown repository type or version")
        return cls(
            strictjson.take(data, "sequence", int, what=what),
            strictjson.take(data, "previous", str, what=what),
            Published(
                check_origin(strictjson.take(data, "origin", str, what=what)),
                RepoType(repo_type),
                KernelRef.parse(strictjson.take(data, "repo", str, what=what)),
                Revision(strictjson.take(data, "servedRevision", str, what=what)),
                Revision(strictjson.take(data, "upstreamRevision", str, what=what)),
                version,
                strictjson.take(data, "lane", str, what=what),
                {subject.name: subject.digest for subject in statement.subjects},
                read_time(strictjson.take(data, "publishedAt", str, what=what), what=what),
            ),
        )


def append(newest: bytes | None, published: Published, key: KeyProvider) -> bytes:
    """Return the signed entry that follows `newest`, the log's last bundle (None at the start)."""
    if newest is None:
        entry = Entry(1, EMPTY, published)
    else:
        before = Statement.parse(Bundle.parse(newest).envelope.payload)
        entry = Entry(Entry.from_statement(before).sequence + 1, head_of(newest), published)
    return sign_statement(entry.to_statement(), key)


def head_of(newest: bytes | None) -> str:
    """Return the log's head: the digest of the last entry's statement, whoever signed it."""
    if newest is None:
        return EMPTY
    return str(Digest.of(Bundle.parse(newest).envelope.payload))


def all_heads(bundles: Iterable[bytes]) -> frozenset[str]:
    """Return every head that this log ever had: what an honest pod may report."""
    return frozenset({EMPTY, *(head_of(data) for data in bundles)})


def read_log(
    bundles: Iterable[bytes], head: str, keys: Mapping[str, PublicKey]
) -> tuple[Entry, ...]:
    """Return all entries, verified from the first to the head; `keys` are by their hint.

    Raises IntegrityError naming the entry that is unsigned, missing, moved or too much.
    """
    entries: list[Entry] = []
    previous = EMPTY
    for number, data in enumerate(bundles, start=1):
        what = f"entry {number} of the publication log"
        try:
            bundle = Bundle.parse(data)
            entry = Entry.from_statement(Statement.parse(bundle.envelope.payload))
        except InvalidInput as exc:
            raise IntegrityError(f"{what} cannot be read: {exc.message}") from exc
        key, envelope = keys.get(bundle.hint), bundle.envelope
        if (
            key is None
            or envelope.payload_type != PAYLOAD_TYPE
            or not key.verify(envelope.signature, envelope.signed_bytes)
        ):
            raise IntegrityError(f"{what} is not signed by a key of this site")
        if (entry.sequence, entry.previous) != (number, previous):
            raise IntegrityError(f"{what} says it is number {entry.sequence}, or follows another")
        previous = head_of(data)
        entries.append(entry)
    if previous != head:
        raise IntegrityError(
            f"the publication log ends at {previous or 'nothing'}, its signed head is {head}",
            hint="somebody withholds entries or shows another history",
        )
    return tuple(entries)
