"""Fill an empty site from a registry: the same digests, decided and signed anew.

A registry's tags can be changed by whoever may push. So only publications count whose attestations
this site's own trust metadata accepts: what was published here before. Pins are not asked.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kgate_core.errors import KgateError
from kgate_mirror_server.bundle.admitting import admit_carried
from kgate_mirror_server.bundle.contents import LeftOut, check_attestations
from kgate_mirror_server.ingest.sync import SyncResult, refresh_trust
from kgate_mirror_server.oci.pull import RegistryBytes, find_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from kgate_mirror_server.app import Mirror
    from kgate_mirror_server.bundle.carried import Carried
    from kgate_mirror_server.ingest.fetch import Progress
    from kgate_mirror_server.oci.registry import Registry, Repository


@dataclass(slots=True)
class Rebuilt:
    """What came back."""

    result: SyncResult = field(default_factory=SyncResult)
    left_out: list[LeftOut] = field(default_factory=list)
    """Variants in the registry that this site never signed, or that are revoked."""


def rebuild(
    mirror: Mirror,
    registry: Registry,
    now: datetime,
    *,
    progress: Progress,
    tell: Callable[[str], None],
) -> Rebuilt:
    """Admit everything in the registry that bears this site's own signatures.

    Raises UpstreamError if the registry does not answer, TrustError if nothing could be signed.
    """
    refresh_trust(mirror, now)
    done = Rebuilt()
    carried = []
    for name in registry.repositories():
        repository = registry.named(name)
        tell(f"looking at {name}")
        for found in find_all(repository):
            refused = list(_uncovered(mirror, repository, found.carried, now))
            done.left_out += refused
            if not refused:
                carried.append(found.carried)
    done.result = admit_carried(
        mirror, carried, RegistryBytes(registry), now, progress=progress, tell=tell
    )
    return done


def _uncovered(
    mirror: Mirror, repository: Repository, carried: Carried, now: datetime
) -> Iterator[LeftOut]:
    """Store the documents of a publication and yield the variants that they do not cover."""
    item = carried.publication
    trusted = mirror.trusted(now)
    for variant in item.variants:
        try:
            for digest in (*variant.bundles, *variant.evidence.values()):
                size = carried.sizes[digest]
                mirror.store.put(digest, size, repository.pull_blob(digest, size))
            reason = check_attestations(mirror, item, variant, trusted, now)
        except KgateError as exc:
            reason = exc.message
        if reason is not None:
            name = f"{item.repo}@{item.served.short} {variant.variant}"
            yield LeftOut(name, reason)
