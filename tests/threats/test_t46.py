"""T46: a mirror shows different pods different histories, or withholds revocations."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from kgate_core.errors import IntegrityError, TrustError
from kgate_core.kernel import Revision
from kgate_core.trust import load
from kgate_core.verify import Expected, Reason, Rejected, Verified, verify
from kgate_signer import trustchanges
from kgate_signer.publog import all_heads, head_of, read_log
from kgate_signer.trustwriter import refresh_timestamp
from tests.trustkit import EXPERIMENTAL, KERNEL, NOW, make_trust, manifest_of
from tests.unit.signer.test_publog import FIRST, KEYS, KIT, log

# The mirror holds the online keys: it can sign either history.
HONEST = log(FIRST, replace(FIRST, served=Revision("d" * 40)))
SECRET = log(FIRST, replace(FIRST, served=Revision("e" * 40)))


def reported(bundles: list[bytes]) -> str:
    """Return what a pod reports that was shown this history: the head its metadata carried."""
    head = head_of(bundles[-1])
    shown = refresh_timestamp(KIT.trust, KIT.timestamp, now=NOW, log_head=head)
    return shown.load(NOW).log_head


def test_a_pod_that_was_shown_another_history_reports_a_head_that_never_was() -> None:
    heads = all_heads(HONEST)
    assert reported(HONEST) in heads
    assert reported(HONEST[:1]) in heads  # merely late
    assert reported(SECRET) not in heads


def test_no_history_fits_two_heads() -> None:
    assert len(read_log(HONEST, reported(HONEST), KEYS)) == 2
    with pytest.raises(IntegrityError, match="its signed head is"):
        read_log(HONEST, reported(SECRET), KEYS)
    with pytest.raises(IntegrityError, match="its signed head is"):
        read_log(HONEST[:1], reported(HONEST), KEYS)


def test_a_withheld_revocation_is_withheld_no_longer_than_the_lanes_window() -> None:
    kit = make_trust()
    manifest = manifest_of()
    bundle = kit.bundle(manifest)
    expected = Expected(KERNEL.variant, EXPERIMENTAL)
    withheld, window = kit.trusted(), kit.trusted().lanes[EXPERIMENTAL].hard_staleness
    trust = trustchanges.revoke_digest(kit.trust, manifest.digest, "CVE", kit.offline, now=NOW)
    told = verify(expected, manifest, [bundle], kit.changed(trust).trusted(), now=NOW)
    assert isinstance(told, Rejected)
    assert told.reason is Reason.REVOKED
    # Cut off from the newer metadata, a pod goes on for a while, and then no more.
    assert isinstance(verify(expected, manifest, [bundle], withheld, now=NOW), Verified)
    late = verify(expected, manifest, [bundle], withheld, now=NOW + window + timedelta(seconds=1))
    assert isinstance(late, Rejected)
    assert late.reason is Reason.STALE


def test_whoever_has_seen_the_revocation_cannot_be_made_to_forget_it() -> None:
    kit = make_trust()
    digest = manifest_of().digest
    trust = trustchanges.revoke_digest(kit.trust, digest, "CVE", kit.offline, now=NOW)
    seen = kit.changed(trust).trusted().versions
    # The mirror vouches anew for the state before.
    young = kit.changed(kit.trust).changed(kit.trust).trust
    for _ in range(5):
        young = refresh_timestamp(young, kit.timestamp, now=NOW)
    with pytest.raises(TrustError, match="older than version"):
        load(kit.pinned, young.since(1), now=NOW, seen=seen)
