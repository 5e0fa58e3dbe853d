"""Take away what nothing needs: publications whose time is over, and blobs without a referrer.

In this order, so that kill -9 at any moment leaves a site that serves what its catalog says:
1. alone in the store: no sync or import can be about to refer to what is found here;
2. the records of what stays are on the shelf; publications whose time is over are retired;
3. everybody who may need a blob is asked anew (see `references`); one who cannot be asked ends it;
4. blobs that nobody named and that are older than the grace period go, one by one.
What a publication needed that was retired just now stays until the next run, for clients that are
reading it. Whether the bytes of what stays are right is `scrub`'s question.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from kgate_core.errors import NotFound
from kgate_mirror_server.catalog.keeping import Place
from kgate_mirror_server.ingest.resolve import read_lock
from kgate_mirror_server.store.tending import tended
from kgate_mirror_server.upkeep.references import References, find_references
from kgate_mirror_server.upkeep.retention import Fate, Known, decide
from kgate_mirror_server.upkeep.shelf import shelve

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from kgate_core.digest import Digest
    from kgate_mirror_server.app import Mirror
    from kgate_mirror_server.store.tending import Tended

PART_AGE: Final = timedelta(days=1)  # of a temporary file that nobody can be writing any more


@dataclass(frozen=True, slots=True)
class Garbage:
    """A blob that nobody needs."""

    digest: Digest
    size: int
    changed: datetime


@dataclass(slots=True)
class Collected:
    """What a run found; with `dry_run` it did nothing about it."""

    dry_run: bool
    fates: tuple[Fate, ...] = ()
    removed: list[Garbage] = field(default_factory=list)
    young: list[Garbage] = field(default_factory=list)
    """Nobody needs them either, but their grace period is not over."""
    kept: int = 0
    kept_bytes: int = 0
    references: References = field(default_factory=References)
    parts: int = 0
    """Temporary files that a crash left."""
    forgotten: int = 0
    """Rows of the intake about variants that nobody asks for any more."""

    @property
    def retired(self) -> list[Fate]:
        """The publications whose time is over."""
        return [fate for fate in self.fates if not fate.stays]


def collect_garbage(
    mirror: Mirror, now: datetime, *, dry_run: bool, tell: Callable[[str], None]
) -> Collected:
    """Do all of the above; raises Conflict while somebody else uses the store."""
    done = Collected(dry_run)
    config = mirror.config
    store = tended(mirror.store)
    with store.alone():
        publications = mirror.catalog.publications()
        lock = read_lock(config.folder)
        known = Known(mirror.keeping.holds(), mirror.keeping.last_used(), lock, config.kernels)
        done.fates = decide(publications, config.retention, known, now)
        leaving = [fate.publication for fate in done.retired]
        if not dry_run:
            gone = {Place.of(item) for item in leaving}
            for item in publications:
                if Place.of(item) not in gone:
                    shelve(mirror.store, item)
            for item in leaving:
                tell(f"retiring {item.repo}@{item.served.short} in lane {item.lane}")
                mirror.catalog.retire(item)
            done.forgotten = _forget(mirror, now)
        # What leaves in this run is asked too: a client may be in the middle of it.
        done.references = find_references(mirror, publications, lock)
        _sweep(mirror, store, done, now)
    return done


def _sweep(mirror: Mirror, store: Tended, done: Collected, now: datetime) -> None:
    grace = timedelta(days=mirror.config.retention.grace_days)
    for digest in list(store.digests()):
        try:
            seen = store.seen(digest)
        except NotFound:
            continue
        if digest in done.references.by_blob:
            done.kept += 1
            done.kept_bytes += seen.size
            continue
        found = Garbage(digest, seen.size, seen.changed)
        if now - found.changed < grace:
            done.young.append(found)
            continue
        if not done.dry_run:
            store.remove(digest)
        done.removed.append(found)
    if not done.dry_run:
        done.parts = store.sweep(now=now, older_than=PART_AGE)


def _forget(mirror: Mirror, now: datetime) -> int:
    """Forget variants on the way whose run ended long ago and that nobody asks for any more."""
    grace = timedelta(days=mirror.config.retention.grace_days)
    wanted = {
        variant.manifest for item in mirror.catalog.publications() for variant in item.variants
    }
    wanted |= {item.manifest for item in mirror.catalog.denials() if item.manifest is not None}
    if (lock := read_lock(mirror.config.folder)) is not None:
        wanted |= {v.manifest for kernel in lock.kernels for v in kernel.variants.values()}
    stale = [
        item
        for item in mirror.keeping.arriving()
        if item.manifest not in wanted and now - item.changed_at >= grace
    ]
    mirror.keeping.forget(stale)
    return len(stale)


def explain(mirror: Mirror, digest: Digest) -> list[str]:
    """Return everybody who needs a blob."""
    publications = mirror.catalog.publications()
    found = find_references(mirror, publications, read_lock(mirror.config.folder))
    return found.by_blob.get(digest, [])
