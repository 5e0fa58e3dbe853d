"""T28: a signing key was stolen and is revoked from a moment on."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from kgate_core.bundle import Bundle
from kgate_core.errors import TrustError
from kgate_core.verify import Expected, Reason, Rejected, Verdict, Verified, verify
from kgate_signer import trustchanges
from kgate_signer.keys import FileKey
from kgate_signer.predicates import vsa_statement
from kgate_signer.sign import sign_statement
from kgate_signer.timestamps import HttpStamper
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
from tests.tsakit import LocalAuthority

if TYPE_CHECKING:
    from pathlib import Path

KIT = make_trust()
STOLEN = KIT.admit
MANIFEST = manifest_of()
EXPECTED = Expected(KERNEL.variant, EXPERIMENTAL, KERNEL.repo, KERNEL.revision)
BEFORE = KIT.bundle(MANIFEST, verified_at=NOW - timedelta(days=1))


def revoked(kit: TrustKit, now: datetime) -> TrustKit:
    """Return the site after the owner of the stolen key noticed."""
    keyid = STOLEN.public_key().keyid
    trust = trustchanges.revoke_key(kit.trust, keyid, "laptop stolen", kit.offline, now=now)
    return replace(kit, now=now).changed(trust)


REVOKED = revoked(KIT, NOW)


def check(kit: TrustKit, bundle: bytes) -> Verdict:
    return verify(EXPECTED, MANIFEST, [bundle], kit.trusted(), now=kit.now)


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


@pytest.fixture
def dated(tmp_path: Path) -> tuple[TrustKit, LocalAuthority]:
    """A site that believes an independent authority; its clock is the real one."""
    now = datetime.now(UTC).replace(microsecond=0)
    authority = LocalAuthority(tmp_path)
    kit = replace(make_trust(now=now), admit=KIT.admit)
    trust = trustchanges.add_authority(kit.trust, authority.pinned(now), kit.offline, now=now)
    trust = trustchanges.add_key(trust, signing_key(STOLEN, now), kit.offline, now=now)
    lane = lane_of(EXPERIMENTAL, {"admit": role_of(STOLEN)})
    trust = trustchanges.set_lane(trust, lane, kit.offline, now=now)
    return kit.changed(trust), authority


def stamped(kit: TrustKit, authority: LocalAuthority, **changes: Any) -> bytes:
    """Return a decision by the stolen key, dated by the authority now."""
    statement = vsa_statement(MANIFEST, kit.vsa(MANIFEST, **changes))
    with authority.served() as url:
        stamper = HttpStamper(url, authority.pinned(kit.now))
        return sign_statement(
            statement, STOLEN, stamp=lambda data: stamper.stamp(data, datetime.now(UTC))
        )


def test_what_an_authority_saw_before_the_theft_goes_on_counting(
    dated: tuple[TrustKit, LocalAuthority],
) -> None:
    kit, authority = dated
    bundle = stamped(kit, authority)
    assert isinstance(check(kit, bundle), Verified)
    later = revoked(kit, kit.now + timedelta(hours=1))
    verdict = check(later, bundle)
    assert isinstance(verdict, Verified)
    assert any("not later than" in step.detail for step in verdict.steps)
    # The same decision without the authority's word is void.
    assert reason(later, kit.bundle(MANIFEST)) is Reason.REVOKED_KEY


def test_what_an_authority_saw_after_the_theft_is_void(
    dated: tuple[TrustKit, LocalAuthority],
) -> None:
    kit, authority = dated
    bundle = stamped(kit, authority)
    earlier = revoked(kit, kit.now - timedelta(hours=1))
    assert reason(replace(earlier, now=kit.now), bundle) is Reason.REVOKED_KEY


def test_the_thiefs_own_authority_and_another_bundles_date_lend_nothing(
    dated: tuple[TrustKit, LocalAuthority], tmp_path: Path
) -> None:
    kit, authority = dated
    later = revoked(kit, kit.now + timedelta(hours=1))
    good = Bundle.parse(stamped(kit, authority))
    forged = Bundle.parse(kit.bundle(MANIFEST, inputs=(MANIFEST.digest,)))
    borrowed = replace(forged, timestamps=good.timestamps)
    assert reason(later, borrowed.to_bytes()) is Reason.REVOKED_KEY
    (tmp_path / "thief").mkdir()
    own = stamped(kit, LocalAuthority(tmp_path / "thief"))
    assert reason(later, own) is Reason.REVOKED_KEY


def test_a_key_may_run_out_without_signing_everything_again(
    dated: tuple[TrustKit, LocalAuthority],
) -> None:
    kit, authority = dated
    bundle, bare = stamped(kit, authority), kit.bundle(MANIFEST)
    trusted = kit.trusted()
    hint = STOLEN.public_key().hint
    over = replace(trusted.keys[hint], valid_until=kit.now + timedelta(hours=1))
    ran_out = replace(trusted, keys={hint: over})
    after = kit.now + timedelta(hours=2)
    assert isinstance(verify(EXPECTED, MANIFEST, [bundle], ran_out, now=after), Verified)
    verdict = verify(EXPECTED, MANIFEST, [bare], ran_out, now=after)
    assert isinstance(verdict, Rejected)
    assert verdict.reason is Reason.EXPIRED


def test_a_date_from_the_future_is_no_date(dated: tuple[TrustKit, LocalAuthority]) -> None:
    kit, authority = dated
    past = kit.now - timedelta(minutes=10)
    bundle = stamped(kit, authority, verified_at=past)
    trusted = replace(kit.trusted(), issued=past)
    assert isinstance(verify(EXPECTED, MANIFEST, [bundle], trusted, now=past), Verified)
    # The key was not valid yet; a date ahead of this clock must not say that it was.
    keys = {
        hint: replace(key, valid_from=kit.now - timedelta(minutes=4))
        for hint, key in trusted.keys.items()
    }
    verdict = verify(EXPECTED, MANIFEST, [bundle], replace(trusted, keys=keys), now=past)
    assert isinstance(verdict, Rejected)
    assert verdict.reason is Reason.EXPIRED
