"""What is served right now, held in memory: an immutable picture of one catalog generation.

`SnapshotSource.refresh` looks whether anything changed (catalog, trust metadata, a proof's time, a
blob) and builds the next picture; variants that did not change are not proven again. When the
catalog or the trust metadata cannot be read, what was proven before goes on being served and
nothing new is; a process that starts meanwhile takes what `kept` has of the catalog.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

import structlog

from kgate_core.errors import Conflict, KgateError
from kgate_mirror_server.serve.kept import Records
from kgate_mirror_server.serve.lanes import lanes_of
from kgate_mirror_server.serve.proof import Proof, prove
from kgate_mirror_server.serve.view import LaneView, ProvenVariant, Withheld

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from kgate_core.kernel import Revision
    from kgate_core.trust import TrustedRoot, Versions
    from kgate_mirror_server.ports import BlobStore, Denial, Publication, PublishedVariant
    from kgate_mirror_server.serve.blobguard import BlobGuard
    from kgate_mirror_server.serve.kept import Kept
    from kgate_mirror_server.serve.trustfolder import Stamp, TrustFolder

T = TypeVar("T")

_log: Final = structlog.get_logger(__name__)

_NOTHING: Final = LaneView()
_Key = tuple[str, str, str, str, str]  # lane, repository type, repository, served, variant


class CatalogReader(Protocol):
    """What serving asks of a catalog; raises KgateError while it is down."""

    def publications(self) -> Sequence[Publication]:
        """Return all publications, sorted by repository, lane and time."""
        ...

    def denials(self) -> Sequence[Denial]:
        """Return all denials that stand."""
        ...

    def generation(self) -> int:
        """Return a number that grows with every change."""
        ...


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One immutable picture; requests in flight keep the one they began with."""

    generation: int = -1
    """The catalog's; -1 before anything could be read."""
    lanes: Mapping[str, LaneView] = field(default_factory=dict)
    valid_until: datetime | None = None
    """When the first proof in it ends."""
    trusted: bool = False
    """True if the trust metadata could be verified when it was built."""

    def lane(self, name: str) -> LaneView:
        """Return what a lane shows; an unknown lane shows nothing."""
        return self.lanes.get(name, _NOTHING)


@dataclass(frozen=True, slots=True)
class _Proven:
    """A proof with all that it depended on."""

    item: PublishedVariant
    origin: str
    upstream: Revision
    trust: Versions
    proof: Proof


@dataclass(frozen=True, slots=True)
class State:
    """How the parts that a snapshot is built from are doing."""

    catalog_up: bool
    trust: TrustedRoot | None
    """None if the trust metadata cannot be verified."""
    refused: int
    """Variants that rows claim and that could not be proven."""
    bad_blobs: int
    """Blobs that are missing or damaged as far as is known."""
    from_kept: bool
    """True if it was not the catalog that said what is served, but what was kept of it."""
    now: datetime


class SnapshotSource:
    """Holds the current snapshot and replaces it; one thread may refresh, any may read."""

    def __init__(
        self,
        catalog: CatalogReader,
        store: BlobStore,
        guard: BlobGuard,
        trust: TrustFolder,
        clock: Callable[[], datetime],
        kept: Kept | None = None,
    ) -> None:
        self._catalog = catalog
        self._kept = kept
        self._records: Records | None = None
        self._from_kept = False
        self._store = store
        self._guard = guard
        self._trust = trust
        self._clock = clock
        self._proven: dict[_Key, _Proven] = {}
        self._stamp: Stamp = ()
        self._root: TrustedRoot | None = None
        self._troubles: dict[str, str] = {}
        self._refused = 0
        self.current = Snapshot()

    def refresh(self) -> bool:
        """Build the next snapshot if anything changed; returns whether there is a new one."""
        now = self._clock()
        records = self._ask("catalog", self._read_catalog)
        self._from_kept = records is None and (self._from_kept or self._records is None)
        if records is None:
            # Trust may change while the catalog is down, and what it revokes must go.
            records = self._records or self._ask("kept", self._read_kept)
        changed = self._read_trust(now)
        before = self.current
        stale = before.valid_until is not None and now >= before.valid_until
        changed = self._guard.changed() or changed
        if records is None or not (changed or stale or records is not self._records):
            return False
        renewed, self._records = records is not self._records, records
        self.current = self._build(records, now)
        if self._kept is not None and renewed and not self._from_kept:
            self._kept.keep(self._proven_only(records))
        _log.info("snapshot.built", generation=records.generation, variants=len(self._proven))
        return True

    def _read_catalog(self) -> Records:
        """Return what the catalog says, the very same object while it says nothing new."""
        generation = self._catalog.generation()
        before = self._records
        if before is not None and before.generation == generation and not self._from_kept:
            return before
        if self._kept is not None and before is None:
            kept = self._ask("kept", self._kept.records)
            before = kept
        if self._kept is not None and before is not None and generation < before.generation:
            raise Conflict(
                f"the catalog is at generation {generation}, {before.generation} was served before",
                hint="restore the right database; or empty the folder serve.kept to accept it",
            )
        publications, denials = self._catalog.publications(), self._catalog.denials()
        return Records(generation, tuple(publications), tuple(denials))

    def _read_kept(self) -> Records | None:
        return None if self._kept is None else self._kept.records()

    def _proven_only(self, records: Records) -> Records:
        proven = [
            replace(
                publication,
                variants=tuple(
                    item for item in publication.variants if _key(publication, item) in self._proven
                ),
            )
            for publication in records.publications
        ]
        return replace(records, publications=tuple(item for item in proven if item.variants))

    def state(self) -> State:
        """Return what monitoring wants to know besides the current snapshot."""
        return State(
            catalog_up="catalog" not in self._troubles,
            trust=self._root,
            refused=self._refused,
            bad_blobs=self._guard.troubled,
            from_kept=self._from_kept,
            now=self._clock(),
        )

    def _read_trust(self, now: datetime) -> bool:
        """Load the trust metadata if it changed; returns whether proofs may differ now."""
        stamp = self._trust.stamp()
        if stamp == self._stamp and self._root is not None:
            return False
        root = self._ask("trust", lambda: self._trust.load(now))
        self._stamp = stamp
        before, self._root = self._root, root
        if root is None or before is None:
            return root is not before
        # The timestamp is signed anew every minute and names no keys, lanes or revocations.
        return _without_timestamp(root.versions) != _without_timestamp(before.versions)

    def _build(self, records: Records, now: datetime) -> Snapshot:
        self._refused = 0
        self._withheld: list[tuple[str, Withheld]] = []
        proven: dict[_Key, _Proven] = {}
        kept: list[tuple[Publication, list[ProvenVariant]]] = []
        for publication in records.publications:
            variants = []
            for item in publication.variants:
                key = _key(publication, item)
                found = proven.get(key) or self._prove(key, publication, item, now)
                if found is not None:
                    proven[key] = found
                    variants.append(
                        ProvenVariant(
                            publication.repo,
                            publication.repo_type,
                            publication.served,
                            item,
                            found.proof,
                        )
                    )
            if variants:
                kept.append((publication, variants))
        self._proven = proven
        ends = [found.proof.valid_until for found in proven.values()]
        return Snapshot(
            records.generation,
            lanes_of(kept, records.denials, self._withheld),
            min(ends, default=None),
            self._root is not None,
        )

    def _prove(
        self, key: _Key, publication: Publication, item: PublishedVariant, now: datetime
    ) -> _Proven | None:
        before = self._proven.get(key)
        same = (
            before is not None
            and before.item == item
            and (before.origin, before.upstream) == (publication.origin, publication.upstream)
            and now < before.proof.valid_until
        )
        reason: str | None = None
        if self._root is None:
            if same:
                return before
            reason = "the trust metadata cannot be verified"
        elif before is not None and same and _same_trust(before.trust, self._root.versions):
            reason = self._look(item)
            if reason is None:
                return before
        else:
            proof = prove(publication, item, self._store, self._guard, self._root, now=now)
            if isinstance(proof, Proof):
                return _Proven(
                    item, publication.origin, publication.upstream, self._root.versions, proof
                )
            reason = proof.reason
        self._refused += 1
        held = Withheld(
            publication.repo_type, publication.repo, publication.served, item.variant, reason
        )
        self._withheld.append((publication.lane, held))
        _log.error(
            "publication.refused",
            kernel=str(publication.repo),
            revision=str(publication.served),
            variant=item.variant,
            lane=publication.lane,
            reason=reason,
        )
        return None

    def _look(self, item: PublishedVariant) -> str | None:
        for file in item.files:
            if reason := self._guard.look(file.digest, file.size):
                return reason
        return None

    def _ask(self, name: str, question: Callable[[], T]) -> T | None:
        """Ask a part that may fail; a failure is logged when it begins and when it ends."""
        try:
            answer = question()
        except KgateError as exc:
            if self._troubles.get(name) != exc.message:
                _log.error(f"{name}.failed", reason=exc.message)
                self._troubles[name] = exc.message
            return None
        if self._troubles.pop(name, None) is not None:
            _log.warning(f"{name}.recovered")
        return answer


def _key(publication: Publication, item: PublishedVariant) -> _Key:
    return (
        publication.lane,
        str(publication.repo_type),
        str(publication.repo),
        str(publication.served),
        item.variant,
    )


def _without_timestamp(versions: Versions) -> tuple[int, int, int]:
    return (versions.root, versions.snapshot, versions.targets)


def _same_trust(one: Versions, other: Versions) -> bool:
    return _without_timestamp(one) == _without_timestamp(other)
