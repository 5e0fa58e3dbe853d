"""The second, human-held signature: what waits for it, and how a person gives it.

A lane may ask for roles besides admit. What the pipeline published into such a lane is not served
and loads nowhere until a holder of each other role has signed the same claims. The approver's
statement is rebuilt from stored evidence, like the pipeline's own, and is published only if the
variant verifies with it. Which lane asks for what is said by the trust metadata.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from kgate_core.breakglass import PREDICATE_TYPE as BREAK_GLASS_TYPE
from kgate_core.bundle import Bundle
from kgate_core.errors import Conflict, InvalidInput, NotFound, TrustError
from kgate_core.kernel import KernelId
from kgate_core.statement import Statement
from kgate_core.verify import Expected, Reason, Rejected, Verdict, verify
from kgate_core.vsa import PREDICATE_TYPE
from kgate_mirror_server.inventory import find
from kgate_mirror_server.trust.founding import ADMIT
from kgate_mirror_server.upkeep.shelf import publish
from kgate_signer.attest import Attestor

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from kgate_core.digest import Digest
    from kgate_core.trust import Lane, TrustedRoot
    from kgate_mirror_server.app import Mirror
    from kgate_mirror_server.ports import Publication, PublishedVariant
    from kgate_signer.keys import KeyProvider


@dataclass(frozen=True, slots=True)
class Waiting:
    """A published variant that lacks signatures which its lane asks for."""

    publication: Publication
    item: PublishedVariant
    message: str
    """Which signature is missing, as a sentence."""

    @property
    def name(self) -> str:
        """Repository, revision and variant for people."""
        where = self.publication
        return f"{where.repo}@{where.served.short} {self.item.variant} (lane {where.lane})"


def waiting(mirror: Mirror, publications: Iterable[Publication], now: datetime) -> list[Waiting]:
    """Return which published variants lack a signature of a role that their lane asks for."""
    trusted = mirror.trusted(now)
    found = []
    for publication in publications:
        lane = trusted.lanes.get(publication.lane)
        if lane is None or set(lane.roles) <= {ADMIT}:
            continue
        for item in publication.variants:
            verdict = _verdict(mirror, publication, item, item.bundles, trusted, now)
            if isinstance(verdict, Rejected) and verdict.reason is Reason.MISSING_ROLE:
                found.append(Waiting(publication, item, verdict.message))
    return found


def find_waiting(mirror: Mirror, reference: str, now: datetime) -> list[Waiting]:
    """Return what waits under a reference; raises NotFound if nothing does."""
    found = waiting(mirror, find(mirror.catalog, reference).publications, now)
    if not found:
        raise NotFound(f"nothing of {reference} waits for an approval")
    return found


def approve(mirror: Mirror, items: Sequence[Waiting], now: datetime) -> None:
    """Sign what waits with the approver's key and publish the approvals.

    Raises TrustError if the key holds no role for it, or if the variant would not verify with this
    approval either, and Conflict if the same key signed it as another role.
    """
    key = mirror.key(mirror.config.keys.approve)
    trusted = mirror.trusted(now)
    approved = [(item, _sign(mirror, item, key, trusted, now)) for item in items]
    for item, approval in approved:
        # Read anew: several variants of one publication may be approved together.
        for publication in mirror.catalog.publications():
            if _same(publication, item.publication):
                variants = tuple(
                    _with(variant, approval) if variant.variant == item.item.variant else variant
                    for variant in publication.variants
                )
                publish(mirror, replace(publication, variants=variants))


def kept_approvals(
    mirror: Mirror, kernel: KernelId, lane: str, manifest: Digest, now: datetime
) -> tuple[Digest, ...]:
    """Return what people signed about a published variant and outlives a renewal by the pipeline.

    Approvals go on counting only as far as they make the same claims, break-glass statements until
    they end: `verify` sees to that.
    """
    before = [
        item
        for publication in mirror.catalog.publications_of(kernel.repo, lane)
        if (publication.repo_type, publication.served) == (kernel.repo_type, kernel.revision)
        for item in publication.variants
        if (item.variant, item.manifest) == (kernel.variant, manifest)
    ]
    if not before:
        return ()  # what was never published was never approved: no signature need be read
    trusted = mirror.trusted(now)
    asked = trusted.lanes.get(lane)
    if asked is None:
        return ()
    hints = _approvers(asked, trusted)
    found: dict[Digest, None] = {}
    for item in before:
        found |= dict.fromkeys(
            digest
            for digest in item.bundles
            if _decider(mirror, digest) in hints or _signed(mirror, digest)[1] == BREAK_GLASS_TYPE
        )
    return tuple(found)


def _sign(
    mirror: Mirror, waits: Waiting, key: KeyProvider, trusted: TrustedRoot, now: datetime
) -> Digest:
    publication, item = waits.publication, waits.item
    hint = key.public_key().hint
    if hint not in _approvers(trusted.lanes[publication.lane], trusted):
        raise TrustError(
            f"the key {hint} holds no role in lane {publication.lane} that approves",
            hint="name the approver's key in kgate.yaml under keys.approve",
        )
    if any(_decider(mirror, digest) == hint for digest in item.bundles):
        raise Conflict(
            f"the key {hint} has signed {waits.name} already",
            hint="who brings a kernel in and who approves it are two people with two keys",
        )
    kernel = KernelId(
        publication.origin,
        publication.repo_type,
        publication.repo,
        publication.served,
        item.variant,
    )
    approval = mirror.room.keep(
        Attestor(
            mirror.config.site,
            key,
            mirror.room,
            _lifetime(mirror, item.manifest, now),
            mirror.stamper,
        ).approve(kernel, publication.lane, item.manifest, item.bundles, now)
    )
    verdict = _verdict(mirror, publication, item, (*item.bundles, approval), trusted, now)
    if isinstance(verdict, Rejected):
        raise TrustError(
            f"{waits.name} would not load with this approval: {verdict.message}",
            hint="nothing was published; `kgate verify` names the step that fails",
        )
    return approval


def _lifetime(mirror: Mirror, manifest: Digest, now: datetime) -> timedelta:
    whole = timedelta(days=mirror.config.valid_days)
    ends = mirror.exceptions(now).ends(manifest, now)
    return whole if ends is None else min(whole, ends - now)


def _approvers(lane: Lane, trusted: TrustedRoot) -> frozenset[str]:
    keyids = {k for name, role in lane.roles.items() if name != ADMIT for k in role.keyids}
    return frozenset(h for h, key in trusted.keys.items() if key.public.keyid in keyids)


def _decider(mirror: Mirror, digest: Digest) -> str | None:
    """Return the hint under which a decision was signed; None for other attestations."""
    hint, predicate_type = _signed(mirror, digest)
    return hint if predicate_type == PREDICATE_TYPE else None


def _signed(mirror: Mirror, digest: Digest) -> tuple[str, str]:
    """Return hint and predicate type of a stored bundle; empty if it is none."""
    try:
        bundle = Bundle.parse(mirror.room.read(digest))
        return bundle.hint, Statement.parse(bundle.envelope.payload).predicate_type
    except InvalidInput:
        return "", ""


def _verdict(
    mirror: Mirror,
    publication: Publication,
    item: PublishedVariant,
    bundles: Iterable[Digest],
    trusted: TrustedRoot,
    now: datetime,
) -> Verdict:
    expected = Expected(
        item.variant,
        publication.lane,
        publication.repo,
        publication.served,
        publication.repo_type,
    )
    data = [mirror.room.read(digest) for digest in bundles]
    return verify(expected, mirror.room.manifest(item.evidence), data, trusted, now=now)


def _same(one: Publication, other: Publication) -> bool:
    return (one.repo_type, one.repo, one.served, one.lane) == (
        other.repo_type,
        other.repo,
        other.served,
        other.lane,
    )


def _with(item: PublishedVariant, approval: Digest) -> PublishedVariant:
    first, *rest = item.bundles
    return replace(item, bundles=(first, approval, *rest))
