"""What a break-glass statement could let in: variants that are denied, or wait for an approval.

Each is shown as part of the publication that it would stand in, under the revision that clients
would see. Nothing is signed or published here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kgate_core.errors import Conflict, NotFound
from kgate_core.kernel import KernelId
from kgate_mirror_server.ingest.served import mint
from kgate_mirror_server.inventory import find
from kgate_mirror_server.ports import Publication, PublishedVariant
from kgate_mirror_server.trust.approvals import waiting
from kgate_policy.exceptions import NEVER

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from kgate_core.digest import Digest
    from kgate_core.kernel import Revision
    from kgate_mirror_server.app import Mirror
    from kgate_mirror_server.ports import Denial

APPROVAL: Final = "approve"
"""Stands among what is overruled where only that signature is missing."""


@dataclass(frozen=True, slots=True)
class Case:
    """A variant that may not be used, with the publication that it would be part of."""

    publication: Publication
    item: PublishedVariant
    overrules: tuple[str, ...]
    """The rules that deny it, or `approve` where only that signature is missing."""
    denial: Denial | None = None


def find_cases(mirror: Mirror, reference: str, now: datetime) -> list[Case]:
    """Return what is denied or waits under a reference; raises NotFound if nothing is.

    Raises Conflict for a variant that is denied by a rule which nothing overrules.
    """
    found = find(mirror.catalog, reference)
    cases = [_denied(mirror, denial) for denial in found.denials]
    cases += [
        Case(item.publication, item.item, (APPROVAL,))
        for item in waiting(mirror, found.publications, now)
    ]
    if not cases:
        raise NotFound(f"nothing of {reference} is denied or waits for an approval")
    return cases


def _denied(mirror: Mirror, denial: Denial) -> Case:
    rules = tuple(str(reason["rule"]) for reason in denial.reasons)
    never = sorted(NEVER & set(rules))
    if denial.manifest is None or never:
        raise Conflict(
            f"{denial.repo} {denial.variant} is denied by {never[0] if never else rules[0]},"
            " which nobody overrules",
            hint="without an answer to that rule nobody knows what they would let in",
        )
    item = PublishedVariant(
        denial.variant,
        denial.manifest,
        mirror.room.imported(denial.evidence).files,
        (),
        denial.evidence,
    )
    before = _standing(mirror, denial)
    others = () if before is None else before.variants
    variants = (*(one for one in others if one.variant != item.variant), item)
    publication = Publication(
        denial.origin,
        denial.repo_type,
        denial.repo,
        _served(mirror, denial, {one.variant: one.manifest for one in variants}),
        denial.upstream,
        denial.version,
        denial.lane,
        tuple(sorted(variants, key=lambda one: one.variant)),
        denial.denied_at,
        () if before is None else before.depends,
    )
    return Case(publication, item, rules, denial)


def _standing(mirror: Mirror, denial: Denial) -> Publication | None:
    """Return what is published of the same commit and version in the same lane."""
    for item in mirror.catalog.publications():
        same = (item.repo_type, item.repo, item.lane, item.upstream, item.version)
        if same == (denial.repo_type, denial.repo, denial.lane, denial.upstream, denial.version):
            return item
    return None


def _served(mirror: Mirror, denial: Denial, wanted: Mapping[str, Digest]) -> Revision:
    taken = False
    for item in mirror.catalog.publications():
        if (item.repo_type, item.repo, item.lane) != (denial.repo_type, denial.repo, denial.lane):
            continue
        held = {one.variant: one.manifest for one in item.variants}
        if item.upstream == denial.upstream and held == wanted:
            return item.served
        taken = taken or item.served == denial.upstream
    return mint(denial.upstream, wanted) if taken else denial.upstream


def kernel_of(publication: Publication, variant: str) -> KernelId:
    """Return the identity of a variant as a publication serves it."""
    return KernelId(
        publication.origin,
        publication.repo_type,
        publication.repo,
        publication.served,
        variant,
    )
