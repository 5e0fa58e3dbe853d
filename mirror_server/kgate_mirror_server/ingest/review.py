"""Evidence of kernels that were synced before, so that any policy can be asked about them again.

Nothing is fetched, signed, published or recorded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kgate_core.kernel import KernelId
from kgate_mirror_server.admit import stored_evidence
from kgate_mirror_server.feeds.comparing import with_present_feed
from kgate_mirror_server.inventory import Found, find
from kgate_mirror_server.ports import EvidenceKind
from kgate_mirror_server.settings.targets import fleet_facts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kgate_core.digest import Digest
    from kgate_core.evidence import Evidence, Facts
    from kgate_mirror_server.app import Mirror
    from kgate_mirror_server.ports import Denial, Publication


def inventory_evidence(mirror: Mirror, reference: str | None = None) -> Iterator[Evidence]:
    """Yield the stored evidence of every variant, or of those that a reference means.

    Raises NotFound for a reference that means nothing. Variants whose bytes were refused have no
    evidence and are left out.
    """
    if reference is None:
        catalog = mirror.catalog
        found = Found(tuple(catalog.publications()), tuple(catalog.denials()))
    else:
        found = find(mirror.catalog, reference)
    known: list[tuple[Publication | Denial, str, Mapping[EvidenceKind, Digest]]] = [
        (item, name.variant, name.evidence) for item in found.publications for name in item.variants
    ]
    known += [(item, item.variant, item.evidence) for item in found.denials]
    siblings: dict[tuple[str, str, str], dict[str, Facts]] = {}
    for item, variant, evidence in known:
        if EvidenceKind.METADATA in evidence:
            together = siblings.setdefault((str(item.repo), str(item.upstream), item.lane), {})
            together[variant] = mirror.room.metadata(evidence)
    told = set()
    for item, variant, evidence in known:
        # What was published and is denied now stands in both lists.
        key = (item.repo, item.upstream, item.lane, variant, evidence.get(EvidenceKind.MANIFEST))
        if EvidenceKind.SCAN in evidence and key not in told:
            told.add(key)
            kernel = KernelId(item.origin, item.repo_type, item.repo, item.upstream, variant)
            together = siblings[str(item.repo), str(item.upstream), item.lane]
            asked = fleet_facts(mirror.config.targets, together)
            stored = stored_evidence(mirror, kernel, item.lane, evidence, asked)
            yield with_present_feed(mirror, stored)
