"""Bring what one lane serves into another: the target lane's rules are asked anew, then signed.

Nothing is fetched and nothing scanned again: evidence and bytes are those of the first lane. What
depends on the lane is not: its policy, its exceptions, its needed kernels, its signatures. Where
the lane asks for a human's signature too, the result waits for `kgate approve`, and the key that
signs here can never give it. Models are not promoted: they are pinned in each lane.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from kgate_core import strictjson
from kgate_core.errors import Conflict, InvalidInput, NotFound
from kgate_core.kernel import KernelId, RepoType
from kgate_core.lock import Lock, LockedKernel, LockedVariant
from kgate_mirror_server.admit import (
    Dependencies,
    KernelResult,
    VariantResult,
    asked_of,
    publish_kernel,
    stored_evidence,
)
from kgate_mirror_server.ingest.denials import denial_of
from kgate_mirror_server.ingest.sync import check_trust, refresh_trust
from kgate_mirror_server.inventory import find
from kgate_mirror_server.ports import EvidenceKind, IntakeState
from kgate_mirror_server.settings.site import Pin
from kgate_mirror_server.trust.approvals import Waiting, waiting
from kgate_mirror_server.trust.publicationlog import record

if TYPE_CHECKING:
    from datetime import datetime

    from kgate_core.evidence import Facts
    from kgate_mirror_server.app import Mirror
    from kgate_mirror_server.ports import Publication, PublishedVariant


@dataclass(frozen=True, slots=True)
class Promoted:
    """What became of each publication."""

    results: tuple[KernelResult, ...]
    waiting: tuple[Waiting, ...]
    """What a human must sign before the lane serves it."""


def promote(
    mirror: Mirror, reference: str, lane: str, now: datetime, *, source: str | None = None
) -> Promoted:
    """Promote all that a reference means; raises NotFound, Conflict, InvalidInput, TrustError.

    `source` names the lane it comes from, where it is published in several. A refusal of the
    target lane's rules is recorded like any denial and returned, not raised.
    """
    chosen = _choose(mirror, reference, lane, source)
    refresh_trust(mirror, now)
    check_trust(mirror, Lock(tuple(_locked(item, lane) for item in chosen)), now)
    results = tuple(_promote(mirror, item, lane, now) for item in chosen)
    if record(mirror, now):
        refresh_trust(mirror, now)
    served = {(result.pin.ref, result.served, lane) for result in results}
    published = [
        item
        for item in mirror.catalog.publications()
        if (item.repo, item.served, item.lane) in served
    ]
    return Promoted(results, tuple(waiting(mirror, published, now)))


def _choose(
    mirror: Mirror, reference: str, lane: str, source: str | None
) -> tuple[Publication, ...]:
    found = [
        item
        for item in find(mirror.catalog, reference).publications
        if item.lane != lane and source in {None, item.lane}
    ]
    if not found:
        raise NotFound(
            f"nothing of {reference} is published in another lane than {lane}",
            hint="`kgate ls` lists what is; `kgate sync` brings a pin into its lane",
        )
    lanes = sorted({item.lane for item in found})
    if len(lanes) > 1:
        raise Conflict(f"{reference} is published in {', '.join(lanes)}", hint="say which: --from")
    if any(item.repo_type is RepoType.MODEL for item in found):
        raise InvalidInput(f"{reference} is a model", hint=f"pin it in lane {lane} and sync")
    return tuple(found)


def _promote(mirror: Mirror, item: Publication, lane: str, now: datetime) -> KernelResult:
    locked, pin = _locked(item, lane), _pin(item, lane)
    needs = _needs(mirror, item, lane)
    siblings = {v.variant: mirror.room.metadata(v.evidence) for v in item.variants}
    asked = asked_of(mirror, pin, siblings)
    results = tuple(_judge(mirror, locked, v, needs, asked, now) for v in item.variants)
    allowed = [result for result in results if result.allowed]
    served = publish_kernel(mirror, pin, locked, allowed, now) if allowed else None
    for result in results:
        if not result.allowed:
            mirror.catalog.deny(denial_of(pin, locked, result, now))
    return KernelResult(pin, lane, item.upstream, served, results, fresh=True)


def _judge(
    mirror: Mirror,
    locked: LockedKernel,
    item: PublishedVariant,
    needs: Dependencies,
    asked: Facts,
    now: datetime,
) -> VariantResult:
    room, lane = mirror.room, locked.lane
    kernel = KernelId(locked.origin, locked.repo_type, locked.repo, locked.commit, item.variant)
    imported = replace(
        room.imported(item.evidence),
        depends=needs.met,
        depends_manifests=needs.manifests,
        unmet=needs.unmet,
    )
    found = {
        **item.evidence,
        EvidenceKind.IMPORT: room.keep(strictjson.dumps(imported.to_json())),
    }
    del found[EvidenceKind.DECISION]
    room.remember(kernel, lane, item.manifest, found, IntakeState.SCANNED, now)
    decision = mirror.decide(stored_evidence(mirror, kernel, lane, found, asked), now)
    found[EvidenceKind.DECISION] = room.keep(strictjson.dumps(decision.to_json()))
    state = IntakeState.DECIDED if decision.allowed else IntakeState.DENIED
    room.remember(kernel, lane, item.manifest, found, state, now)
    return VariantResult(item.variant, item.manifest, decision, decision.denials, found)


def _needs(mirror: Mirror, item: Publication, lane: str) -> Dependencies:
    met, manifests, unmet = [], [], []
    for need in item.depends:
        found = _newest(mirror, need, lane)
        if found is None:
            unmet.append(f"{item.repo} → {need} is not published in lane {lane}: promote it first")
        else:
            met.append(f"{found.repo}@{found.served}")
            manifests += [variant.manifest for variant in found.variants]
    return Dependencies(tuple(met), tuple(manifests), tuple(unmet))


def _newest(mirror: Mirror, need: str, lane: str) -> Publication | None:
    """Return the newest publication of `org/name@vN` in a lane."""
    found = [
        item
        for item in mirror.catalog.publications()
        if f"{item.repo}@v{item.version}" == need and item.lane == lane
    ]
    return max(found, key=lambda item: item.published_at, default=None)


def _pin(item: Publication, lane: str) -> Pin:
    names = tuple(variant.variant for variant in item.variants)
    if item.version is None:
        return Pin(repo=str(item.repo), revision=str(item.upstream), variants=names, lane=lane)
    return Pin(repo=str(item.repo), version=item.version, variants=names, lane=lane)


def _locked(item: Publication, lane: str) -> LockedKernel:
    pin = _pin(item, lane)
    return LockedKernel(
        item.origin,
        item.repo_type,
        item.repo,
        lane,
        pin.wanted,
        item.upstream,
        {
            variant.variant: LockedVariant(
                variant.manifest, sum(file.size for file in variant.files), len(variant.files)
            )
            for variant in item.variants
        },
        item.depends,
        pin.variants,
    )
