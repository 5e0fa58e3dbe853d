"""T47: one person pins, grants the exception and approves; or the policy becomes allow-all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kgate_core.digest import Digest
from kgate_core.errors import InvalidInput
from kgate_core.verify import Expected, Reason, Rejected, Verified, verify
from kgate_signer import trustchanges
from tests.trustkit import KERNEL, NOW, PRODUCTION, lane_of, make_trust, manifest_of, role_of

if TYPE_CHECKING:
    from kgate_signer.keys import FileKey

KIT = make_trust()
MANIFEST = manifest_of()
EXPECTED = Expected(KERNEL.variant, PRODUCTION, KERNEL.repo, KERNEL.revision)


def reason(*bundles: bytes) -> Reason:
    verdict = verify(EXPECTED, MANIFEST, bundles, KIT.trusted(), now=NOW)
    assert isinstance(verdict, Rejected)
    return verdict.reason


@pytest.mark.parametrize("key", [KIT.admit, KIT.approve], ids=["admit", "approve"])
def test_one_key_cannot_be_both_signatures(key: FileKey) -> None:
    # Two different bundles, both well signed, by one person.
    first = KIT.bundle(MANIFEST, key, lane=PRODUCTION)
    second = KIT.bundle(MANIFEST, key, lane=PRODUCTION, inputs=(Digest.of(first),))
    assert reason(first, second) is Reason.MISSING_ROLE


@pytest.mark.parametrize("threshold", [1, 2])
def test_trust_metadata_in_which_one_key_holds_two_roles_is_refused(threshold: int) -> None:
    both = lane_of(
        PRODUCTION,
        {
            "admit": role_of(KIT.admit),
            "approve": role_of(KIT.admit, KIT.approve, threshold=threshold),
        },
    )
    trust = trustchanges.set_lane(KIT.trust, both, KIT.offline, now=NOW)
    with pytest.raises(InvalidInput, match="one key holds two roles"):
        KIT.changed(trust)


def test_a_policy_that_the_lane_does_not_allow_decides_nothing() -> None:
    allow_all = Digest.of(b"rules: []")
    forged = [
        KIT.bundle(MANIFEST, key, lane=PRODUCTION, policy_digest=allow_all)
        for key in (KIT.admit, KIT.approve)
    ]
    assert reason(*forged) is Reason.POLICY
    # Not even under the honest decision of the other role.
    assert reason(KIT.bundle(MANIFEST, lane=PRODUCTION), forged[1]) is Reason.MISSING_ROLE


def test_two_people_under_an_allowed_policy_are_believed() -> None:
    honest = [KIT.bundle(MANIFEST, key, lane=PRODUCTION) for key in (KIT.admit, KIT.approve)]
    verdict = verify(EXPECTED, MANIFEST, honest, KIT.trusted(), now=NOW)
    assert isinstance(verdict, Verified)


def test_breaking_the_glass_takes_three_keys_and_ends_by_itself() -> None:
    from tests.unit.core import test_breakglass as glass

    alone = glass.check(glass.signed((glass.KIT.admit, glass.ANN, glass.ANN)))
    assert isinstance(alone, Rejected)
    together = glass.check(glass.signed())
    assert isinstance(together, Verified)
    assert together.break_glass is not None
    assert isinstance(glass.check(glass.signed(), hours=8), Rejected)
