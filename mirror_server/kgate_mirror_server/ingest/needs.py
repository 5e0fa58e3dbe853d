"""Which kernels a pinned one loads: in which order to take pins, and what is published already.

Looks at the lock and the catalog only; what an unmet need means is a policy's question.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kgate_core.kernel import KernelRef
from kgate_mirror_server.admit import Dependencies
from kgate_mirror_server.ingest.resolve import find_locked, unpinned_path

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kgate_core.lock import Lock, LockedKernel
    from kgate_mirror_server.app import Mirror
    from kgate_mirror_server.ports import Publication
    from kgate_mirror_server.settings.site import Pin


def dependencies_first(mirror: Mirror, lock: Lock) -> Iterable[tuple[Pin, LockedKernel]]:
    """Yield pins so that what a kernel loads comes before it; a cycle is broken anywhere."""
    pins = [
        (pin, locked)
        for pin in mirror.config.kernels
        if (locked := find_locked(lock, mirror.config, pin)) is not None
    ]
    by_name = {(f"{item.repo}@{item.pin}", item.lane): (pin, item) for pin, item in pins}
    done: set[tuple[str, str]] = set()

    def visit(pin: Pin, locked: LockedKernel) -> Iterable[tuple[Pin, LockedKernel]]:
        key = (f"{locked.repo}@{locked.pin}", locked.lane)
        if key in done:
            return
        done.add(key)
        for need in locked.depends:
            if (need, locked.lane) in by_name:
                yield from visit(*by_name[need, locked.lane])
        yield pin, locked

    for pin, locked in pins:
        yield from visit(pin, locked)


def dependencies_of(mirror: Mirror, lock: Lock, locked: LockedKernel) -> Dependencies:
    """Say which needed kernels are published, and the path to those that are not."""
    unpinned = unpinned_path(locked, lock.kernels, mirror.config)
    unmet = [" → ".join(unpinned) + " is not pinned in kgate.yaml"] if unpinned else []
    met: list[str] = []
    manifests = []
    for need in locked.depends:
        found = _published(mirror, need, locked.lane)
        if found is not None:
            met.append(f"{found.repo}@{found.served}")
            manifests += [item.manifest for item in found.variants]
        elif not unpinned:
            unmet.append(f"{locked.repo}@{locked.pin} → {need} was not admitted to this lane")
    return Dependencies(tuple(met), tuple(manifests), tuple(unmet))


def _published(mirror: Mirror, need: str, lane: str) -> Publication | None:
    """Return the newest publication of `org/name@vN` in a lane."""
    repo, _, wanted = need.partition("@")
    found = [
        item
        for item in mirror.catalog.publications_of(KernelRef.parse(repo), lane)
        if f"v{item.version}" == wanted
    ]
    return max(found, key=lambda item: item.published_at, default=None)
