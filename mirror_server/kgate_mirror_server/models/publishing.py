"""Publish one model: sign it for its lane, under a revision that is never widened.

What may be published is decided in `intake`; nothing is fetched here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from kgate_core.kernel import WHOLE, KernelId, RepoType, Revision
from kgate_mirror_server.ingest.served import mint
from kgate_mirror_server.ports import EvidenceKind, IntakeState, Publication, PublishedVariant
from kgate_mirror_server.trust.approvals import kept_approvals
from kgate_mirror_server.upkeep.shelf import publish

if TYPE_CHECKING:
    from datetime import datetime

    from kgate_core.digest import Digest
    from kgate_mirror_server.app import Mirror
    from kgate_mirror_server.ports import ServedFile


def publish_model(
    mirror: Mirror,
    kernel: KernelId,
    lane: str,
    files: tuple[ServedFile, ...],
    found: dict[EvidenceKind, Digest],
    now: datetime,
) -> Revision:
    """Sign the model for its lane and publish it in one transaction."""
    room, manifest, upstream = mirror.room, found[EvidenceKind.MANIFEST], kernel.revision
    served = _served_revision(mirror, kernel, lane, manifest)
    kernel = replace(kernel, revision=served)
    room.remember(kernel, lane, manifest, found, IntakeState.DECIDED, now)
    approvals = kept_approvals(mirror, kernel, lane, manifest, now)
    signed = mirror.attestor.attest(kernel, lane, manifest, now)
    vsa, *others = (room.keep(bundle) for bundle in signed.bundles)
    variant = PublishedVariant(WHOLE, manifest, files, (vsa, *approvals, *others), found)
    publish(
        mirror,
        Publication(
            kernel.origin,
            RepoType.MODEL,
            kernel.repo,
            served,
            upstream,
            None,
            lane,
            (variant,),
            now,
        ),
    )
    return served


def _served_revision(mirror: Mirror, kernel: KernelId, lane: str, manifest: Digest) -> Revision:
    """Return the commit itself if it is free, else one minted for these files: never widened."""
    taken = False
    for item in published_models(mirror, kernel, lane):
        if item.upstream == kernel.revision and _manifest_of(item) == manifest:
            return item.served
        taken = taken or item.served == kernel.revision
    return mint(kernel.revision, {WHOLE: manifest}) if taken else kernel.revision


def published_models(mirror: Mirror, kernel: KernelId, lane: str) -> list[Publication]:
    """Return what is published of a model in a lane."""
    place = (RepoType.MODEL, kernel.repo, lane)
    return [
        item
        for item in mirror.catalog.publications()
        if (item.repo_type, item.repo, item.lane) == place
    ]


def _manifest_of(item: Publication) -> Digest | None:
    return next((variant.manifest for variant in item.variants), None)
