"""Ask any policy about kernels that were synced before, from their stored evidence.

Nothing is fetched, signed, published or recorded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kgate_core.kernel import KernelId
from kgate_mirror_server.admit import stored_evidence
from kgate_mirror_server.inventory import find
from kgate_mirror_server.ports import EvidenceKind
from kgate_policy import evaluate

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from kgate_core.digest import Digest
    from kgate_core.evidence import Decision
    from kgate_mirror_server.app import Mirror
    from kgate_mirror_server.ports import Denial, Publication
    from kgate_policy import Policy


def review(
    mirror: Mirror, reference: str, policy: Policy, now: datetime
) -> list[tuple[KernelId, Decision]]:
    """Return what a policy says about every variant that a reference means; raises NotFound."""
    found = find(mirror.catalog, reference)
    known: list[tuple[Publication | Denial, str, Mapping[EvidenceKind, Digest]]] = [
        (item, name.variant, name.evidence) for item in found.publications for name in item.variants
    ]
    known += [(item, item.variant, item.evidence) for item in found.denials]
    reviews = []
    for item, variant, evidence in known:
        if EvidenceKind.SCAN not in evidence:
            continue  # its bytes were refused, there is nothing to ask about
        kernel = KernelId(item.origin, item.repo_type, item.repo, item.upstream, variant)
        asked = stored_evidence(mirror, kernel, item.lane, evidence, {})
        reviews.append((kernel, evaluate(asked, policy, now=now)))
    return reviews
