"""What is served right now, held in memory: an immutable picture of one catalog generation.

`SnapshotSource.refresh` looks whether anything changed (catalog, trust metadata, a proof's time, a
blob) and builds the next picture; variants that did not change are not proven again. When the
catalog or the trust metadata cannot be read, what was proven before goes on being served and
nothing new is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeVar

import structlog

from kgate_core.errors import KgateError
from kgate_mirror_server.serve.lanes import lanes_of
from kgate_mirror_server.serve.proof import Proof, prove
from kgate_mirror_server.serve.view import LaneView, ProvenVariant

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from kgate_core.kernel import Revision
    from kgate_core.trust import TrustedRoot, Versions
    from kgate_mirror_server.ports import (
        BlobStore,
        Catalog,
        Denial,
        Publication,
        PublishedVariant,
    )
    from kgate_mirror_server.serve.blobguard import BlobGuard
    from kgate_mirror_server.serve.trustfolder import Stamp, TrustFolder

T = TypeVar("T")

_log: Final = structlog.get_logger(__name__)

_NOTHING: Final = LaneView()
_Key = tuple[str, str, str, str, str]  # lane, repository type, repository, served, variant


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
    now: datetime


class SnapshotSource:
    """Holds the current snapshot and replaces it; one thread may refresh, any may read."""

    def __init__(
        self,
        catalog: Catalog,
        store: BlobStore,
        guard: BlobGuard,
        trust: TrustFolder,
        clock: Callable[[], datetime],
    ) -> None:
        self._catalog = catalog
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
        generation = self._ask("catalog", self._catalog.generation)
        changed = self._read_trust(now)
        before = self.current
        stale = before.valid_until is not None and now >= before.valid_until
        changed = self._guard.changed() or changed
        if generation is None or not (changed or stale or generation != before.generation):
            return False
        publications = self._ask("catalog", self._catalog.publications)
        denials = self._ask("catalog", self._catalog.denials)
        if publications is None or denials is None:
            return False
        self.current = self._build(generation, publications, denials, now)
        _log.info("snapshot.built", generation=generation, variants=len(self._proven))
        return True

    def state(self) -> State:
        """Return what monitoring wants to know besides the current snapshot."""
        return State(
            catalog_up="catalog" not in self._troubles,
            trust=self._root,
            refused=self._refused,
            bad_blobs=self._guard.troubled,
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

    def _build(
        self,
        generation: int,
        publications: Sequence[Publication],
        denials: Sequence[Denial],
        now: datetime,
    ) -> Snapshot:
        self._refused = 0
        proven: dict[_Key, _Proven] = {}
        kept: list[tuple[Publication, list[ProvenVariant]]] = []
        for publication in publications:
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
            generation, lanes_of(kept, denials), min(ends, default=None), self._root is not None
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
