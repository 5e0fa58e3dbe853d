"""Pull kernels back: signed revocations that every pod obeys, and the way back.

A revocation names manifest digests, so it holds for these bytes wherever they are served, cached or
carried. What a process has loaded already stays in its memory. Nothing is deleted here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kgate_core.digest import Digest
from kgate_core.errors import Conflict, NotFound
from kgate_core.trust import Revocation
from kgate_mirror_server.inventory import find
from kgate_mirror_server.trust.pending import WaitsForSignatures
from kgate_mirror_server.trust.update import sign_change
from kgate_mirror_server.trust.withheld import Withheld, withhold
from kgate_signer.trustchanges import reinstate_digest, revoke_digest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from kgate_mirror_server.app import Mirror
    from kgate_signer.trustwriter import Offline, TrustSet


@dataclass(frozen=True, slots=True)
class Named:
    """One variant that a revocation is about."""

    digest: Digest
    name: str
    """Repository, revision and variant for people; else the digest itself."""


def revoke(mirror: Mirror, reference: str, reason: str, now: datetime) -> list[Named]:
    """Revoke every variant that a reference means; raises NotFound, Conflict if all are revoked.

    A digest may be one that this site never saw: an advisory can name it before it comes in. Raises
    WaitsForSignatures where more holders of the root must sign; the mirror obeys it at once.
    """
    named = _named(mirror, reference)
    revoked = mirror.signed_trust(now).revoked_digests
    fresh = [item for item in named if item.digest not in revoked]
    if not fresh:
        raise Conflict(f"{reference} is revoked already")

    def change(trust: TrustSet, by: Offline) -> TrustSet:
        for item in fresh:
            trust = revoke_digest(trust, item.digest, reason, by, now=now)
        return trust

    try:
        sign_change(mirror, change, now)
    except WaitsForSignatures:
        # The mirror need not wait for the other holders of the root: it serves it no more.
        held = Withheld(Revocation(now, reason), mirror.config.site)
        withhold(mirror.config.path(mirror.config.trust), {i.digest: held for i in fresh})
        raise
    return fresh


def reinstate(mirror: Mirror, reference: str, now: datetime) -> list[Named]:
    """Take revocations back; raises NotFound if nothing of it is revoked."""
    revoked = mirror.signed_trust(now).revoked_digests
    back = [item for item in _named(mirror, reference) if item.digest in revoked]
    if not back:
        raise NotFound(f"{reference} is not revoked")

    def change(trust: TrustSet, by: Offline) -> TrustSet:
        for item in back:
            trust = reinstate_digest(trust, item.digest, by, now=now)
        return trust

    sign_change(mirror, change, now)
    return back


def _named(mirror: Mirror, reference: str) -> Sequence[Named]:
    if reference.startswith("sha256:"):
        digest = Digest.parse(reference)
        try:
            found = find(mirror.catalog, reference)
        except NotFound:
            return [Named(digest, reference)]
    else:
        found = find(mirror.catalog, reference)
    names = {
        variant.manifest: f"{item.repo}@{item.served.short} {variant.variant}"
        for item in found.publications
        for variant in item.variants
        if not reference.startswith("sha256:") or str(variant.manifest) == reference
    }
    names |= {
        item.manifest: f"{item.repo}@{item.upstream.short} {item.variant}"
        for item in found.denials
        if item.manifest is not None
    }
    return [Named(digest, name) for digest, name in sorted(names.items())]
