"""T30: frozen or rolled-back trust metadata."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from kgate_core.digest import Digest
from kgate_core.errors import TrustError
from kgate_core.trust import load
from kgate_core.verify import Expected, Reason, Rejected, Verified, verify
from kgate_signer import trustchanges
from kgate_signer.trustwriter import TrustSet
from tests.trustkit import EXPERIMENTAL, KERNEL, NOW, make_trust, manifest_of

OLD = make_trust()
MANIFEST = manifest_of()
BUNDLE = OLD.bundle(MANIFEST)
EXPECTED = Expected(KERNEL.variant, EXPERIMENTAL, KERNEL.repo, KERNEL.revision)
# The mirror has since revoked the kernel; an attacker serves what it said before.
NEW = OLD.changed(
    trustchanges.revoke_digest(OLD.trust, MANIFEST.digest, "CVE-1", OLD.offline, now=NOW)
)


def test_the_attack_would_pay_off_without_the_defence() -> None:
    old = verify(EXPECTED, MANIFEST, [BUNDLE], OLD.trusted(), now=NOW)
    new = verify(EXPECTED, MANIFEST, [BUNDLE], NEW.trusted(), now=NOW)
    assert isinstance(old, Verified)
    assert isinstance(new, Rejected)
    assert new.reason is Reason.REVOKED


def test_rolled_back_metadata_is_refused_by_whoever_saw_newer() -> None:
    seen = NEW.trusted().versions
    with pytest.raises(TrustError, match="is older than version 2 seen before"):
        load(OLD.pinned, OLD.trust.since(1), now=NOW, seen=seen)


def test_no_single_document_can_be_rolled_back_under_a_new_timestamp() -> None:
    for name in ("snapshot.json", "targets.json"):
        mixed = TrustSet.from_files(NEW.trust.files | {name: OLD.trust.files[name]})
        with pytest.raises(TrustError, match="version 2, found 1"):
            mixed.load(NOW)


def test_frozen_metadata_is_refused_when_the_lanes_window_is_over() -> None:
    # Everything is genuine and unexpired; only nobody vouched for it lately.
    lane = replace(OLD.trusted().lanes[EXPERIMENTAL], hard_staleness=timedelta(hours=1))
    frozen = replace(OLD.trusted(), lanes={EXPERIMENTAL: lane})
    within = verify(EXPECTED, MANIFEST, [BUNDLE], frozen, now=NOW + timedelta(hours=1))
    after = verify(EXPECTED, MANIFEST, [BUNDLE], frozen, now=NOW + timedelta(hours=1, seconds=1))
    assert isinstance(within, Verified)
    assert isinstance(after, Rejected)
    assert after.reason is Reason.STALE


def test_frozen_metadata_is_refused_when_it_expires() -> None:
    with pytest.raises(TrustError, match=r"timestamp\.json version 1 expired"):
        OLD.trust.load(NOW + timedelta(days=1))
    # Also if it was loaded in time and the process lived on.
    trusted = OLD.trusted()
    lane = replace(trusted.lanes[EXPERIMENTAL], hard_staleness=timedelta(days=30))
    lived = replace(trusted, lanes={EXPERIMENTAL: lane})
    verdict = verify(EXPECTED, MANIFEST, [BUNDLE], lived, now=trusted.expires)
    assert isinstance(verdict, Rejected)
    assert verdict.reason is Reason.STALE


def test_a_clock_set_back_does_not_make_old_metadata_young() -> None:
    with pytest.raises(TrustError, match="in the future"):
        NEW.trust.load(NOW - timedelta(days=1))


def test_versions_only_grow_when_trust_is_written() -> None:
    kit = OLD
    seen = kit.trusted().versions
    for number in range(3):
        changed = trustchanges.revoke_digest(
            kit.trust, Digest.of(b"%d" % number), "x", kit.offline, now=NOW
        )
        kit = kit.changed(changed)
        found = load(kit.pinned, kit.trust.since(1), now=NOW, seen=seen).versions
        assert found.targets == seen.targets + 1
        assert found.timestamp == seen.timestamp + 1
        seen = found
