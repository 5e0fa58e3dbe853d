"""T28: a signing key was stolen and is revoked from a moment on."""

from __future__ import annotations

from datetime import timedelta

import pytest

from kgate_core.errors import TrustError
from kgate_core.verify import Expected, Reason, Rejected, Verdict, Verified, verify
from kgate_signer import trustchanges
from kgate_signer.keys import FileKey
from kgate_signer.trustwriter import Offline
from tests.trustkit import (
    EXPERIMENTAL,
    KERNEL,
    NOW,
    TrustKit,
    lane_of,
    make_trust,
    manifest_of,
    role_of,
    signing_key,
)

KIT = make_trust()
STOLEN = KIT.admit
MANIFEST = manifest_of()
EXPECTED = Expected(KERNEL.variant, EXPERIMENTAL, KERNEL.repo, KERNEL.revision)
BEFORE = KIT.bundle(MANIFEST, verified_at=NOW - timedelta(days=1))
REVOKED = KIT.changed(
    trustchanges.revoke_key(
        KIT.trust, STOLEN.public_key().keyid, "laptop stolen", KIT.offline, now=NOW
    )
)


def check(kit: TrustKit, bundle: bytes) -> Verdict:
    return verify(EXPECTED, MANIFEST, [bundle], kit.trusted(), now=NOW)


def reason(kit: TrustKit, bundle: bytes) -> Reason:
    verdict = check(kit, bundle)
    assert isinstance(verdict, Rejected)
    return verdict.reason


def test_before_the_revocation_the_thief_is_believed() -> None:
    assert isinstance(check(KIT, KIT.bundle(MANIFEST, STOLEN)), Verified)


@pytest.mark.parametrize("days", [0, 1, 365])
def test_after_it_nothing_that_key_signed_counts_whatever_date_it_claims(days: int) -> None:
    # The thief dates back: without an independent timestamp a date is only a claim.
    dated = KIT.bundle(MANIFEST, STOLEN, verified_at=NOW - timedelta(days=days))
    assert reason(REVOKED, dated) is Reason.REVOKED_KEY
    assert reason(REVOKED, BEFORE) is Reason.REVOKED_KEY


def test_the_thief_cannot_lift_the_revocation_with_the_stolen_key() -> None:
    old, seen = KIT.trusted().versions, REVOKED.trusted().versions
    with pytest.raises(TrustError, match="older than"):
        old.check_not_older(seen)
    with pytest.raises(TrustError, match="lacks signatures"):
        trustchanges.renew(REVOKED.trust, Offline(KIT.pinned, (STOLEN,)), now=NOW)


def test_signing_again_with_a_new_key_is_the_way_back() -> None:
    fresh = FileKey.generate()
    trust = trustchanges.add_key(REVOKED.trust, signing_key(fresh), KIT.offline, now=NOW)
    lane = lane_of(EXPERIMENTAL, {"admit": role_of(fresh)})
    trust = trustchanges.set_lane(trust, lane, KIT.offline, now=NOW)
    kit = REVOKED.changed(trust)
    assert isinstance(check(kit, KIT.bundle(MANIFEST, fresh)), Verified)
    assert reason(kit, BEFORE) is Reason.REVOKED_KEY


def test_a_key_that_was_only_replaced_counts_to_the_end_of_its_time() -> None:
    # Rotation in peace: both keys hold the role, the old one runs out.
    fresh = FileKey.generate()
    trust = trustchanges.add_key(KIT.trust, signing_key(fresh), KIT.offline, now=NOW)
    lane = lane_of(EXPERIMENTAL, {"admit": role_of(STOLEN, fresh)})
    kit = KIT.changed(trustchanges.set_lane(trust, lane, KIT.offline, now=NOW))
    for bundle in (BEFORE, KIT.bundle(MANIFEST, fresh)):
        assert isinstance(check(kit, bundle), Verified)
