"""T48: an approval replayed in another lane, site or tenant."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from kgate_core.verify import Expected, Reason, Rejected, Verified, verify
from kgate_signer import trustchanges
from tests.trustkit import (
    EXPERIMENTAL,
    KERNEL,
    NOW,
    PRODUCTION,
    lane_of,
    make_trust,
    manifest_of,
    role_of,
    signing_key,
)

if TYPE_CHECKING:
    from kgate_core.trust import TrustedRoot

KIT = make_trust()
MANIFEST = manifest_of()


def reason(lane: str, bundle: bytes, trusted: TrustedRoot) -> Reason | None:
    expected = Expected(KERNEL.variant, lane, KERNEL.repo, KERNEL.revision)
    verdict = verify(expected, MANIFEST, [bundle], trusted, now=NOW)
    if isinstance(verdict, Verified):
        return None
    assert isinstance(verdict, Rejected)
    return verdict.reason


def test_a_decision_for_one_lane_counts_in_no_other_even_with_the_same_keys() -> None:
    # A second lane with the very same key and policy: only the lane's name differs.
    twin = lane_of("tenant-b", {"admit": role_of(KIT.admit)})
    kit = KIT.changed(trustchanges.set_lane(KIT.trust, twin, KIT.offline, now=NOW))
    trusted = kit.trusted()
    bundle = kit.bundle(MANIFEST)
    assert reason(EXPERIMENTAL, bundle, trusted) is None
    assert reason("tenant-b", bundle, trusted) is Reason.WRONG_LANE
    assert reason(PRODUCTION, bundle, trusted) is Reason.WRONG_LANE
    assert reason("nowhere", bundle, trusted) is Reason.UNKNOWN_LANE


def test_lanes_whose_names_share_a_level_are_still_kept_apart() -> None:
    # `team-a` and `team_a` both state KGATE_TEAM_A.
    lanes = [lane_of(name, {"admit": role_of(KIT.admit)}) for name in ("team-a", "team_a")]
    trust = KIT.trust
    for lane in lanes:
        trust = trustchanges.set_lane(trust, lane, KIT.offline, now=NOW)
    trusted = KIT.changed(trust).trusted()
    bundle = KIT.bundle(MANIFEST, lane="team-a")
    assert reason("team-a", bundle, trusted) is None
    assert reason("team_a", bundle, trusted) is Reason.WRONG_LANE


def test_a_decision_of_one_site_counts_at_no_other_even_with_the_same_key() -> None:
    other = make_trust(keys=(KIT.admit,))
    trust = trustchanges.set_lane(
        other.trust,
        lane_of(EXPERIMENTAL, {"admit": role_of(KIT.admit)}),
        other.offline,
        now=NOW,
    )
    there = replace(other.changed(trust).trusted(), site="island.test")
    assert signing_key(KIT.admit) in there.keys.values()
    assert reason(EXPERIMENTAL, KIT.bundle(MANIFEST), there) is Reason.WRONG_LANE
    assert reason(EXPERIMENTAL, KIT.bundle(MANIFEST, site="island.test"), there) is None


@pytest.mark.parametrize("role", ["admit", "approve"])
def test_production_does_not_take_one_signature_for_two(role: str) -> None:
    key = {"admit": KIT.admit, "approve": KIT.approve}[role]
    bundle = KIT.bundle(MANIFEST, key, lane=PRODUCTION)
    assert reason(PRODUCTION, bundle, KIT.trusted()) is Reason.MISSING_ROLE
