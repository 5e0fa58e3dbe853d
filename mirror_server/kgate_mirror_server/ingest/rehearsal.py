"""What `kgate sync` would do: what it would lock, fetch and decide again, and nothing of it done.

Upstream is asked for branches and file lists. No file is fetched, nothing is stored, signed,
published or written. What only the bytes can tell (the decision about something new) stays open.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kgate_core.digest import Digest
from kgate_core.errors import KgateError
from kgate_core.kernel import KernelId
from kgate_mirror_server.ingest.fetch import select_variants
from kgate_mirror_server.ingest.needs import dependencies_of
from kgate_mirror_server.ingest.resolve import find_locked
from kgate_mirror_server.ingest.standing import Standings
from kgate_mirror_server.ingest.sync import done_before
from kgate_mirror_server.ports import EvidenceKind

if TYPE_CHECKING:
    from datetime import datetime

    from kgate_core.evidence import Facts
    from kgate_core.kernel import Revision
    from kgate_core.lock import Lock, LockedKernel
    from kgate_mirror_server.app import Mirror
    from kgate_mirror_server.ingest.resolve import Source
    from kgate_mirror_server.settings.site import Pin


@dataclass(frozen=True, slots=True)
class Step:
    """What would happen to one pin."""

    pin: Pin
    does: str
    """unchanged, decide (it came in before), fetch, lock (and fetch), or fail."""
    commit: Revision | None = None
    files: int = 0
    size: int = 0
    """Bytes that would come."""
    variants: tuple[str, ...] = ()
    moved: Revision | None = None
    """Where upstream's branch points now, if not at the locked commit."""
    error: KgateError | None = None

    def to_json(self) -> Facts:
        """Return the step as a JSON object."""
        return {
            "pin": str(self.pin),
            "does": self.does,
            "commit": None if self.commit is None else str(self.commit),
            "files": self.files,
            "bytes": self.size,
            "variants": list(self.variants),
            "moved": None if self.moved is None else str(self.moved),
            "error": None if self.error is None else self.error.message,
        }


def rehearse(mirror: Mirror, lock: Lock | None, source: Source, now: datetime) -> list[Step]:
    """Return what a sync would do for each pin; raises nothing that is about one pin alone."""
    standings = Standings(mirror, now)
    steps = []
    for pin in mirror.config.kernels:
        try:
            locked = find_locked(lock, mirror.config, pin)
            steps.append(_step(mirror, lock, source.of(pin), pin, locked, standings, now))
        except KgateError as exc:
            steps.append(Step(pin, "fail", error=exc))
    return steps


def _step(
    mirror: Mirror,
    lock: Lock | None,
    source: Source,
    pin: Pin,
    locked: LockedKernel | None,
    standings: Standings,
    now: datetime,
) -> Step:
    if locked is None or lock is None:
        if pin.version is None and pin.revision is None:
            # To find a digest, small files would have to be fetched and stored.
            return Step(pin, "lock")
        commit = source.commit(pin)
        return _fetching(mirror, source, pin, commit, None, "lock")
    moved = None
    if pin.version is not None and (present := source.commit(pin)) != locked.commit:
        moved = present
    needs = dependencies_of(mirror, lock, locked)
    names = tuple(sorted(locked.variants))
    if (
        standings.find(pin, locked, needs) is not None
        or done_before(mirror, pin, locked, needs, now) is not None
    ):
        return Step(pin, "unchanged", locked.commit, variants=names, moved=moved)
    return _fetching(mirror, source, pin, locked.commit, locked, "fetch", moved)


def _fetching(
    mirror: Mirror,
    source: Source,
    pin: Pin,
    commit: Revision,
    locked: LockedKernel | None,
    does: str,
    moved: Revision | None = None,
) -> Step:
    chosen = select_variants(pin.ref, source.files(pin.ref, commit), pin.variants)
    wanted = {n: files for n, files in chosen.items() if locked is None or n in locked.variants}
    coming = [
        file
        for files in wanted.values()
        for file in files
        # Small files are asked for again each time: only their bytes tell their sha256.
        if file.lfs_sha256 is None or not mirror.store.has(Digest(file.lfs_sha256))
    ]
    known = locked is not None and all(_came_in(mirror, locked, name) for name in wanted)
    size = sum(file.size for file in coming)
    return Step(
        pin, "decide" if known else does, commit, len(coming), size, tuple(sorted(wanted)), moved
    )


def _came_in(mirror: Mirror, locked: LockedKernel, name: str) -> bool:
    kernel = KernelId(locked.origin, locked.repo_type, locked.repo, locked.commit, name)
    found = mirror.room.found(kernel, locked.lane) or {}
    return found.get(EvidenceKind.MANIFEST) == locked.variants[name].manifest
