"""Let this site's own scanner, policy and keys decide about publications that were carried here.

The work is `sync`'s, over pins that follow from what was carried: nothing of it is repeated here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kgate_core.lock import Lock
from kgate_mirror_server.app import Mirror
from kgate_mirror_server.bundle.upstream import CarriedUpstream
from kgate_mirror_server.ingest.resolve import Source, require_lock
from kgate_mirror_server.ingest.sync import SyncResult, sync
from kgate_mirror_server.settings.upstreams import Upstream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from kgate_mirror_server.bundle.carried import Carried
    from kgate_mirror_server.bundle.upstream import Bytes
    from kgate_mirror_server.ingest.fetch import Progress


def admit_carried(
    mirror: Mirror,
    carried: Sequence[Carried],
    files: Bytes,
    now: datetime,
    *,
    progress: Progress,
    tell: Callable[[str], None],
) -> SyncResult:
    """Admit publications as `kgate sync` admits pins; raises TrustError for an unknown lane."""
    total = SyncResult()
    for items in _rounds(carried):
        origin = items[0].publication.origin
        config = mirror.config.model_copy(
            update={
                "kernels": tuple(item.pin for item in items),
                "upstream": Upstream(url="carried", origin=origin),
                "upstreams": {},
            }
        )
        site = Mirror(config, mirror.ask)
        # One store and one catalog: the copy differs in what is pinned only.
        site.store, site.catalog, site.rules = mirror.store, mirror.catalog, mirror.rules
        source = Source(CarriedUpstream(origin, items, files), mirror.store, progress)
        # Pins that no lock covers are passed over in silence: here each must be covered.
        lock = require_lock(Lock(tuple(item.locked for item in items)), config, targets=False)
        result = sync(site, lock, source, now, tell=tell)
        total.kernels += result.kernels
        total.failures += result.failures
        total.fetched_bytes += result.fetched_bytes
        total.waiting += result.waiting
        total.exceptions = result.exceptions
    return total


def _rounds(carried: Sequence[Carried]) -> Iterator[list[Carried]]:
    """Yield groups of one origin in which no pin stands twice, the oldest publications first."""
    groups: dict[tuple[int, str], list[Carried]] = {}
    seen: dict[tuple[object, ...], int] = {}
    for item in sorted(carried, key=lambda one: one.publication.published_at):
        key = item.locked.key
        seen[key] = seen.get(key, -1) + 1
        groups.setdefault((seen[key], item.publication.origin), []).append(item)
    yield from groups.values()
