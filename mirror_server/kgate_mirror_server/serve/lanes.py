"""Gathers proven publications into what each lane shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kgate_mirror_server.serve.view import LaneView, RepoView, RevisionView

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kgate_core.digest import Digest
    from kgate_core.kernel import RepoType, Revision
    from kgate_mirror_server.ports import Denial, Publication
    from kgate_mirror_server.serve.view import ProvenVariant, Withheld


def lanes_of(
    kept: Iterable[tuple[Publication, list[ProvenVariant]]],
    denials: Iterable[Denial],
    withheld: Iterable[tuple[str, Withheld]] = (),
) -> dict[str, LaneView]:
    """Return lane name to view, from publications with their proven variants."""
    branches: dict[tuple[str, RepoType, str], dict[int, Revision]] = {}
    revisions: dict[tuple[str, RepoType, str], dict[str, RevisionView]] = {}
    refs = {}
    manifests: dict[str, dict[Digest, dict[str, ProvenVariant]]] = {}
    told: dict[str, dict[str, list[Denial]]] = {}
    for publication, variants in kept:
        key = (publication.lane, publication.repo_type, str(publication.repo))
        refs[key] = publication.repo
        if publication.version is not None:
            branches.setdefault(key, {})[publication.version] = publication.served
        revisions.setdefault(key, {}).setdefault(
            str(publication.served),
            RevisionView(
                publication.served,
                publication.upstream,
                publication.published_at,
                {variant.item.variant: variant for variant in variants},
            ),
        )
        by_digest = manifests.setdefault(publication.lane, {})
        for variant in variants:
            where = f"{key}@{publication.served}/{variant.item.variant}"
            by_digest.setdefault(variant.item.manifest, {})[where] = variant
    for denial in denials:
        told.setdefault(denial.lane, {}).setdefault(str(denial.repo), []).append(denial)
    held: dict[str, dict[str, list[Withheld]]] = {}
    # A row that somebody made up opens no lane; one that was revoked once stood in its lane.
    known: set[str] = set()
    for lane, item in withheld:
        held.setdefault(lane, {}).setdefault(str(item.repo), []).append(item)
        known |= {lane} if item.revoked else set()
    lanes = {key[0] for key in revisions} | set(told) | known
    return {
        lane: LaneView(
            {
                (key[1], key[2]): RepoView(refs[key], key[1], branches.get(key, {}), found)
                for key, found in revisions.items()
                if key[0] == lane
            },
            {digest: tuple(found.values()) for digest, found in manifests.get(lane, {}).items()},
            {repo: tuple(found) for repo, found in told.get(lane, {}).items()},
            {repo: tuple(found) for repo, found in held.get(lane, {}).items()},
        )
        for lane in lanes
    }
