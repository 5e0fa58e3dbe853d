"""T45: the serving host, its database and its online keys are stolen."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from kgate_core import tuf
from kgate_core.errors import TrustError
from kgate_core.kernel import KernelRef, Revision
from kgate_core.verify import Expected, Reason, Rejected, Verified, verify
from kgate_signer import trustchanges
from kgate_signer.keys import FileKey
from kgate_signer.trustwriter import Offline, TrustSet, refresh_timestamp
from tests.trustkit import EXPERIMENTAL, KERNEL, NOW, PRODUCTION, make_trust, manifest_of

KIT = make_trust()
GOOD = manifest_of()
EVIL = manifest_of({"__init__.py": b"import os", "metadata.json": b"{}"})
# What a person approved before the theft; the thief holds `admit` and `timestamp` and these bytes.
APPROVED = KIT.bundle(GOOD, KIT.approve, lane=PRODUCTION)
EXPECTED = Expected(KERNEL.variant, PRODUCTION, KERNEL.repo, KERNEL.revision)


def by_thief(manifest: Any = EVIL, **changes: Any) -> bytes:
    return KIT.bundle(manifest, KIT.admit, **({"lane": PRODUCTION} | changes))


def reason(*bundles: bytes, manifest: Any = EVIL, expected: Expected = EXPECTED) -> Reason:
    verdict = verify(expected, manifest, bundles, KIT.trusted(), now=NOW)
    assert isinstance(verdict, Rejected)
    return verdict.reason


def test_what_the_person_approved_goes_on_loading() -> None:
    verdict = verify(EXPECTED, GOOD, [by_thief(GOOD), APPROVED], KIT.trusted(), now=NOW)
    assert isinstance(verdict, Verified)


def test_new_bytes_need_the_person() -> None:
    assert reason(by_thief()) is Reason.MISSING_ROLE
    assert reason(by_thief(), by_thief(), APPROVED) is Reason.MISSING_ROLE


@pytest.mark.parametrize(
    "changes",
    [
        {"metadata_id": "torch"},
        {"depends": (EVIL.digest,)},
        {"upstream_revision": Revision("e" * 40)},
    ],
)
def test_an_old_approval_lends_nothing_to_new_claims_about_the_same_bytes(
    changes: dict[str, Any],
) -> None:
    assert reason(by_thief(GOOD, **changes), APPROVED, manifest=GOOD) is Reason.MISSING_ROLE


def test_an_old_approval_does_not_serve_approved_bytes_under_another_name() -> None:
    other = replace(KERNEL, repo=KernelRef("acme", "softmax"))
    asked = replace(EXPECTED, repo=other.repo)
    forged = by_thief(GOOD, kernel=other)
    assert reason(forged, APPROVED, manifest=GOOD, expected=asked) is Reason.MISSING_ROLE


def test_the_stolen_timestamp_key_changes_no_key_lane_or_revocation() -> None:
    targets = json.loads(KIT.trust.targets)
    roles = targets["signed"]["kgate"]["lanes"][PRODUCTION]["roles"]
    del roles["approve"]
    signed = targets["signed"]
    signature = KIT.timestamp.sign(tuf.canonical(signed)).hex()
    signer = KIT.timestamp.public_key().keyid
    targets["signatures"] = [{"keyid": signer, "sig": signature}]
    forged = TrustSet.from_files(KIT.trust.files | {"targets.json": json.dumps(targets).encode()})
    with pytest.raises(TrustError, match=r"targets\.json version 1 has 0 valid"):
        forged.load(NOW)
    with pytest.raises(TrustError, match="lacks signatures"):
        trustchanges.renew(KIT.trust, Offline(KIT.pinned, (KIT.timestamp, KIT.admit)), now=NOW)


def test_a_revocation_cannot_be_withheld_by_signing_an_older_state_anew() -> None:
    # The thief may vouch for old targets: whoever saw the newer ones is not fooled.
    revoked = KIT.changed(
        trustchanges.revoke_digest(KIT.trust, GOOD.digest, "CVE", KIT.offline, now=NOW)
    )
    again = KIT.trust
    for _ in range(3):
        again = refresh_timestamp(again, KIT.timestamp, now=NOW)
    with pytest.raises(TrustError, match=r"snapshot\.json version 1 is older than version 2"):
        again.load(NOW).versions.check_not_older(revoked.trusted().versions)


def test_the_experimental_lane_is_lost_and_says_so_by_its_roles() -> None:
    # One machine-held signature is what that lane asks for: the boundary, stated plainly.
    expected = replace(EXPECTED, lane=EXPERIMENTAL)
    forged = by_thief(lane=EXPERIMENTAL)
    verdict = verify(expected, EVIL, [forged], KIT.trusted(), now=NOW)
    assert isinstance(verdict, Verified)
    assert [signer.partition(":")[0] for signer in verdict.signers] == ["admit"]
    assert set(KIT.trusted().lanes[PRODUCTION].roles) == {"admit", "approve"}


def test_keys_made_by_the_thief_are_unknown() -> None:
    forged = KIT.bundle(EVIL, FileKey.generate(), lane=PRODUCTION)
    assert reason(forged) is Reason.UNKNOWN_KEY
