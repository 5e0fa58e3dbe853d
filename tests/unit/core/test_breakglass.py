from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from kgate_core.breakglass import MAX_LASTING, PREDICATE_TYPE, BreakGlass
from kgate_core.digest import Digest
from kgate_core.errors import InvalidInput
from kgate_core.kernel import KernelRef, Revision
from kgate_core.statement import Statement, subjects_of
from kgate_core.verify import Expected, Reason, Rejected, Verdict, Verified, verify
from kgate_signer import trustchanges
from kgate_signer.keys import FileKey
from kgate_signer.sign import sign_statement
from tests.trustkit import (
    EXPERIMENTAL,
    KERNEL,
    NOW,
    PRODUCTION,
    SITE,
    TrustKit,
    make_trust,
    manifest_of,
    signing_key,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kgate_core.manifest import Manifest

ANN, BOB, STRANGER = FileKey.generate(), FileKey.generate(), FileKey.generate()


def kit_of(**roles: FileKey) -> TrustKit:
    kit = make_trust()
    trust = kit.trust
    for role, key in roles.items():
        entry = replace(signing_key(key), role=role.partition("_")[0])
        trust = trustchanges.add_key(trust, entry, kit.offline, now=NOW)
    return kit.changed(trust)


KIT = kit_of(approve_1=ANN, approve_2=BOB, feed=STRANGER)
MANIFEST = manifest_of()
EXPECTED = Expected(KERNEL.variant, PRODUCTION, KERNEL.repo, KERNEL.revision)
GLASS = BreakGlass(
    kernel=KERNEL,
    upstream_revision=KERNEL.revision,
    lane=PRODUCTION,
    site=SITE,
    manifest=MANIFEST.digest,
    metadata_id="relu",
    depends=(),
    overrules=("no-dirty-build",),
    reason="Inference is down without it; a fix is in review.",
    requested_by="carol",
    requester=KIT.admit.public_key().hint,
    granted=NOW,
    until=NOW + timedelta(hours=8),
)


def signed(
    keys: Sequence[FileKey] = (KIT.admit, ANN, BOB),
    glass: BreakGlass = GLASS,
    manifest: Manifest = MANIFEST,
) -> list[bytes]:
    statement = Statement.of(subjects_of(manifest), PREDICATE_TYPE, glass.to_predicate())
    return [sign_statement(statement, key) for key in keys]


def check(
    bundles: Sequence[bytes],
    *,
    kit: TrustKit = KIT,
    expected: Expected = EXPECTED,
    hours: float = 0,
) -> Verdict:
    trusted = kit.trusted()
    return verify(expected, MANIFEST, bundles, trusted, now=NOW + timedelta(hours=hours))


def refusal(found: Verdict) -> str:
    assert isinstance(found, Rejected)
    last = found.steps[-1]
    assert (last.number, last.name, last.ok) == (9, "break-glass", False)
    assert last.detail in found.message
    return last.detail


def test_two_approvers_and_whoever_asked_let_a_kernel_in_for_a_while() -> None:
    found = check(signed())
    assert isinstance(found, Verified)
    assert found.break_glass == GLASS
    assert not found.vsa.passed
    assert found.vsa.valid_until == GLASS.until
    assert [name.partition(":")[0] for name in found.signers] == ["request", "approve", "approve"]
    # Nothing is hidden: the step that said no stands before the one that overrules it.
    assert [(step.number, step.ok) for step in found.steps[-2:]] == [(8, False), (9, True)]
    assert "for carol: Inference is down" in found.steps[-1].detail


def test_it_reads_back_what_it_wrote() -> None:
    assert BreakGlass.from_predicate(GLASS.to_predicate()) == GLASS


def test_an_ordinary_decision_comes_first_and_is_told_as_such() -> None:
    honest = [KIT.bundle(MANIFEST, key, lane=PRODUCTION) for key in (KIT.admit, KIT.approve)]
    found = check([*signed(), *honest])
    assert isinstance(found, Verified)
    assert found.break_glass is None


def test_it_stands_in_for_the_approval_that_is_missing() -> None:
    found = check([KIT.bundle(MANIFEST, lane=PRODUCTION), *signed()])
    assert isinstance(found, Verified)
    assert found.break_glass == GLASS


@pytest.mark.parametrize("hours", [8, 9, -1])
def test_before_it_begins_and_when_it_has_ended_it_counts_for_nothing(hours: float) -> None:
    assert "it counts from 2026-11-21T12:00:00Z until" in refusal(check(signed(), hours=hours))


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ((KIT.admit, ANN), "needs 2 keys of the role approve besides the one that asked, found 1"),
        ((KIT.admit, ANN, ANN), "found 1"),
        ((KIT.admit, ANN, STRANGER), "found 1"),
        ((KIT.admit,), "found 0"),
        ((ANN, BOB), "which asked, did not sign"),
        ((FileKey.generate(), ANN, BOB), "which asked, did not sign"),
    ],
    ids=["one", "one-twice", "other-role", "alone", "not-asked", "unknown-requester"],
)
def test_three_keys_of_three_people_are_needed(keys: Sequence[FileKey], complaint: str) -> None:
    assert complaint in refusal(check(signed(keys)))


def test_who_asked_is_no_approver() -> None:
    own = replace(GLASS, requester=ANN.public_key().hint)
    assert "found 1" in refusal(check(signed((ANN, BOB), own)))
    assert isinstance(check(signed((ANN, BOB, KIT.approve), own)), Verified)


def test_a_key_that_brings_kernels_in_never_approves() -> None:
    # Registered twice over: for approve by its entry, and as the lane's own admit key.
    kit = make_trust()
    admit = kit.admit.public_key()

    def relabel(own: dict[str, Any]) -> None:
        own["keys"][admit.keyid]["role"] = "approve"

    from kgate_signer.trustwriter import change_targets

    trust = change_targets(kit.trust, relabel, kit.offline, now=NOW)
    entry = replace(signing_key(STRANGER), role="ingest")
    kit = kit.changed(trustchanges.add_key(trust, entry, kit.offline, now=NOW))
    asked = replace(GLASS, requester=STRANGER.public_key().hint)
    bundles = signed((STRANGER, kit.admit, kit.approve), asked)
    assert "found 1" in refusal(check(bundles, kit=kit))


def test_a_revoked_or_expired_approver_does_not_count() -> None:
    keyid = BOB.public_key().keyid
    revoked = trustchanges.revoke_key(KIT.trust, keyid, "lost", KIT.offline, now=NOW)
    assert "found 1" in refusal(check(signed(), kit=KIT.changed(revoked)))
    ended = trustchanges.end_key(KIT.trust, keyid, NOW, KIT.offline, now=NOW)
    assert "found 1" in refusal(check(signed(), kit=KIT.changed(ended)))


def test_nothing_revoked_loads_by_it() -> None:
    for digest in (MANIFEST.digest, MANIFEST.files[0].digest):
        trust = trustchanges.revoke_digest(KIT.trust, digest, "CVE-1", KIT.offline, now=NOW)
        found = check(signed(), kit=KIT.changed(trust))
        assert isinstance(found, Rejected)
        assert found.reason is Reason.REVOKED
        assert "break-glass" not in found.message


def test_nothing_loads_by_it_under_stale_trust_metadata() -> None:
    long = replace(GLASS, until=NOW + MAX_LASTING)
    found = check(signed(glass=long), hours=25)
    assert isinstance(found, Rejected)
    assert found.reason is Reason.STALE


@pytest.mark.parametrize(
    ("glass", "expected", "complaint"),
    [
        (replace(GLASS, lane=EXPERIMENTAL), EXPECTED, "it is for lane experimental"),
        (replace(GLASS, site="other.test"), EXPECTED, "of other.test, asked for"),
        (GLASS, replace(EXPECTED, repo=KernelRef("acme", "gelu")), "asked for repository"),
        (GLASS, replace(EXPECTED, revision=Revision("b" * 40)), "asked for revision"),
        (replace(GLASS, manifest=Digest.of(b"x")), EXPECTED, "not this manifest"),
    ],
    ids=["lane", "site", "repository", "revision", "manifest"],
)
def test_it_is_for_one_kernel_in_one_lane_of_one_site(
    glass: BreakGlass, expected: Expected, complaint: str
) -> None:
    assert complaint in refusal(check(signed(glass=glass), expected=expected))


def test_it_is_for_one_set_of_files() -> None:
    other = manifest_of({"__init__.py": b"pass\n"})
    assert "the files here are" in refusal(check(signed(manifest=other)))


def test_signatures_over_different_statements_do_not_add_up() -> None:
    longer = replace(GLASS, until=NOW + timedelta(hours=9))
    bundles = [*signed((KIT.admit, ANN)), *signed((KIT.admit, BOB), longer)]
    assert "found 1" in refusal(check(bundles))


def test_statements_that_cannot_be_read_are_passed_over() -> None:
    odd = Statement.of(subjects_of(MANIFEST), PREDICATE_TYPE, {"lane": PRODUCTION})
    broken = [sign_statement(odd, key) for key in (KIT.admit, ANN, BOB)]
    assert "'requestedBy' is missing" in refusal(check([b"{}", *broken]))
    assert isinstance(check([b"{}", *broken, *signed()]), Verified)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"until": NOW + MAX_LASTING + timedelta(seconds=1)}, "ends within 72 hours"),
        ({"until": NOW}, "ends within 72 hours"),
        ({"reason": "urgent"}, "a reason of at least 12"),
        ({"requested_by": " "}, "names who asked"),
        ({"requester": ""}, "names who asked"),
    ],
)
def test_it_cannot_be_without_an_end_a_reason_or_somebody_who_asked(
    changes: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(InvalidInput, match=complaint):
        replace(GLASS, **changes)
