from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from kgate_core import strictjson, verify
from kgate_core.bundle import Bundle, Envelope, pae
from kgate_core.digest import Digest
from kgate_core.kernel import KernelRef, RepoType, Revision
from kgate_core.statement import PAYLOAD_TYPE, Statement, subjects_of
from kgate_core.trust import Revocation, TrustedRoot
from kgate_core.verify import Expected, Reason, Rejected, Verdict, Verified
from kgate_core.vsa import PREDICATE_TYPE
from kgate_signer.keys import FileKey
from kgate_signer.predicates import sbom_statement
from kgate_signer.sign import sign_statement
from tests.trustkit import (
    EXPERIMENTAL,
    KERNEL,
    NOW,
    PRODUCTION,
    lane_of,
    make_trust,
    manifest_of,
    role_of,
)

OTHER = FileKey.generate()  # known to the site, holds no role in its two lanes
SECOND = FileKey.generate()
KIT = make_trust(
    lane_of("pair", {"admit": role_of(OTHER, SECOND, threshold=2)}), keys=(OTHER, SECOND)
)
TRUSTED = KIT.trusted()
MANIFEST = manifest_of()
EXPECTED = Expected("torch-cpu", EXPERIMENTAL, KERNEL.repo, KERNEL.revision)
BUNDLE = KIT.bundle(MANIFEST)


def check(
    *bundles: bytes,
    expected: Expected = EXPECTED,
    trusted: TrustedRoot = TRUSTED,
    after: timedelta = timedelta(0),
) -> Verdict:
    return verify.verify(expected, MANIFEST, bundles, trusted, now=NOW + after)


def refused(verdict: Verdict) -> tuple[Reason, int]:
    """Return the reason and the number of the first step that failed."""
    assert isinstance(verdict, Rejected)
    assert verdict.message
    failed = [step for step in verdict.steps if not step.ok]
    return verdict.reason, failed[0].number


def test_what_was_signed_is_verified_and_every_step_is_told() -> None:
    verdict = check(BUNDLE)
    assert isinstance(verdict, Verified)
    assert [(step.number, step.ok) for step in verdict.steps] == [(n, True) for n in range(1, 9)]
    assert all(step.name and step.detail for step in verdict.steps)
    assert verdict.vsa == KIT.vsa(MANIFEST)
    assert verdict.signers == (f"admit:{KIT.admit.public_key().hint}",)


def test_what_a_caller_cannot_know_is_not_compared() -> None:
    assert isinstance(check(BUNDLE, expected=Expected("torch-cpu", EXPERIMENTAL)), Verified)


def test_1_an_unknown_lane_is_refused() -> None:
    assert refused(check(BUNDLE, expected=replace(EXPECTED, lane="other"))) == (
        Reason.UNKNOWN_LANE,
        1,
    )


def test_1_stale_or_expired_trust_is_refused() -> None:
    day = timedelta(days=1)
    hourly = replace(
        TRUSTED,
        lanes={EXPERIMENTAL: replace(TRUSTED.lanes[EXPERIMENTAL], hard_staleness=day / 24)},
    )
    assert isinstance(check(BUNDLE, after=day / 24, trusted=hourly), Verified)
    second = timedelta(seconds=1)
    assert refused(check(BUNDLE, after=day / 24 + second, trusted=hourly)) == (Reason.STALE, 1)
    assert isinstance(check(BUNDLE, after=day - second), Verified)
    assert refused(check(BUNDLE, after=day)) == (Reason.STALE, 1)


@pytest.mark.parametrize("digest", [MANIFEST.digest, MANIFEST.files[1].digest])
def test_2_a_revoked_manifest_or_file_is_refused(digest: Digest) -> None:
    trusted = replace(TRUSTED, revoked_digests={digest: Revocation(NOW, "CVE-2026-1")})
    verdict = check(BUNDLE, trusted=trusted)
    assert refused(verdict) == (Reason.REVOKED, 2)
    assert isinstance(verdict, Rejected)
    assert "CVE-2026-1" in verdict.message


def test_3_no_bundle_and_too_many_are_refused() -> None:
    assert refused(check()) == (Reason.NO_BUNDLE, 3)
    assert isinstance(check(*[BUNDLE] * verify.MAX_BUNDLES), Verified)
    assert refused(check(*[BUNDLE] * (verify.MAX_BUNDLES + 1))) == (Reason.MALFORMED, 3)


def resigned(payload: bytes, payload_type: str = PAYLOAD_TYPE, key: FileKey = KIT.admit) -> bytes:
    hint = key.public_key().hint
    return Bundle(
        Envelope(payload, payload_type, key.sign(pae(payload_type, payload)), hint), hint
    ).to_bytes()


@pytest.mark.parametrize(
    "bundle",
    [
        b"",
        b"{}",
        BUNDLE[:-1],
        resigned(b"not a statement"),
        resigned(Bundle.parse(BUNDLE).envelope.payload, "application/json"),
        resigned(Statement.of(subjects_of(MANIFEST), PREDICATE_TYPE, {}).data),
    ],
)
def test_3_what_is_malformed_is_refused_even_if_signed(bundle: bytes) -> None:
    assert refused(check(bundle))[0] is Reason.MALFORMED


def test_3_attestations_of_another_kind_are_passed_over() -> None:
    sbom = sign_statement(sbom_statement(MANIFEST, b'{"bomFormat":"CycloneDX"}'), KIT.admit)
    assert isinstance(check(sbom, BUNDLE, sbom), Verified)
    assert refused(check(sbom)) == (Reason.MISSING_ROLE, 8)


def test_4_an_unknown_key_is_refused() -> None:
    stranger = FileKey.generate()
    assert refused(check(KIT.bundle(MANIFEST, stranger))) == (Reason.UNKNOWN_KEY, 4)


def test_4_a_revoked_key_is_refused_whenever_it_signed() -> None:
    trusted = replace(
        TRUSTED, revoked_keys={KIT.admit.public_key().keyid: Revocation(NOW, "stolen")}
    )
    assert refused(check(BUNDLE, trusted=trusted)) == (Reason.REVOKED_KEY, 4)


def test_4_a_key_counts_only_in_its_time() -> None:
    hint = KIT.admit.public_key().hint
    known = TRUSTED.keys[hint]
    for valid_from, valid_until, good in (
        (NOW + timedelta(minutes=5), known.valid_until, True),
        (NOW + timedelta(minutes=5, seconds=1), known.valid_until, False),
        (known.valid_from, NOW, False),
        (known.valid_from, NOW + timedelta(seconds=1), True),
    ):
        keys = {hint: replace(known, valid_from=valid_from, valid_until=valid_until)}
        verdict = check(BUNDLE, trusted=replace(TRUSTED, keys=keys))
        if good:
            assert isinstance(verdict, Verified)
        else:
            assert refused(verdict) == (Reason.EXPIRED, 4)


def test_4_a_changed_payload_or_signature_is_refused() -> None:
    envelope = Bundle.parse(BUNDLE).envelope
    hint = envelope.keyid
    for changed in (
        replace(envelope, payload=envelope.payload.replace(b"relu", b"gelu")),
        replace(envelope, signature=envelope.signature[:-1] + b"\x00"),
        replace(envelope, signature=OTHER.sign(envelope.signed_bytes)),
    ):
        assert refused(check(Bundle(changed, hint).to_bytes())) == (Reason.BAD_SIGNATURE, 4)


def test_5_a_statement_about_other_files_is_refused() -> None:
    other = manifest_of({"__init__.py": b"", "metadata.json": b"{}"})
    assert refused(check(KIT.bundle(other))) == (Reason.WRONG_SUBJECT, 5)


def test_5_subjects_must_be_all_files_and_nothing_more() -> None:
    predicate = KIT.vsa(MANIFEST).to_predicate()
    subjects = subjects_of(MANIFEST)
    for wrong in (subjects[1:], subjects[:-1], subjects[::-1]):
        statement = Statement.of(wrong, PREDICATE_TYPE, predicate)
        assert refused(check(sign_statement(statement, KIT.admit))) == (Reason.WRONG_SUBJECT, 5)


@pytest.mark.parametrize(
    "expected",
    [
        replace(EXPECTED, repo=KernelRef("acme", "gelu")),
        replace(EXPECTED, revision=Revision("b" * 40)),
        replace(EXPECTED, variant="torch-cuda"),
        replace(EXPECTED, repo_type=RepoType.MODEL),
    ],
)
def test_6_a_statement_about_something_else_is_refused(expected: Expected) -> None:
    assert refused(check(BUNDLE, expected=expected)) == (Reason.WRONG_IDENTITY, 6)


def test_6_an_origin_that_the_lane_does_not_carry_is_refused() -> None:
    bundle = KIT.bundle(MANIFEST, kernel=replace(KERNEL, origin="https://elsewhere.test"))
    assert refused(check(bundle)) == (Reason.WRONG_IDENTITY, 6)


def test_7_a_decision_about_another_manifest_is_refused() -> None:
    predicate = replace(KIT.vsa(MANIFEST), manifest=Digest.of(b"other")).to_predicate()
    statement = Statement.of(subjects_of(MANIFEST), PREDICATE_TYPE, predicate)
    assert refused(check(sign_statement(statement, KIT.admit))) == (Reason.WRONG_SUBJECT, 7)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"lane": PRODUCTION}, Reason.WRONG_LANE),
        ({"site": "other.test"}, Reason.WRONG_LANE),
        ({"passed": False}, Reason.NOT_PASSED),
        ({"policy_digest": Digest.of(b"allow all")}, Reason.POLICY),
        ({"verified_at": NOW + timedelta(minutes=6)}, Reason.EXPIRED),
        ({"valid_until": NOW}, Reason.EXPIRED),
    ],
)
def test_7_a_decision_that_does_not_count_here_is_refused(
    changes: dict[str, Any], reason: Reason
) -> None:
    assert refused(check(KIT.bundle(MANIFEST, **changes))) == (reason, 7)


def both(**changes: Any) -> tuple[bytes, bytes]:
    """Return the decision by both roles; `changes` are what the second one claims instead."""
    return (
        KIT.bundle(MANIFEST, KIT.admit, lane=PRODUCTION),
        KIT.bundle(MANIFEST, KIT.approve, lane=PRODUCTION, **changes),
    )


IN_PRODUCTION = replace(EXPECTED, lane=PRODUCTION)


def test_8_every_role_of_the_lane_must_have_signed() -> None:
    admitted, approved = both()
    verdict = check(admitted, approved, expected=IN_PRODUCTION)
    assert isinstance(verdict, Verified)
    assert [signer.partition(":")[0] for signer in verdict.signers] == ["admit", "approve"]
    for one in (admitted, approved):
        assert refused(check(one, expected=IN_PRODUCTION)) == (Reason.MISSING_ROLE, 8)
        # Signing twice makes no second signer.
        assert refused(check(one, one, expected=IN_PRODUCTION)) == (Reason.MISSING_ROLE, 8)


def test_8_a_threshold_counts_distinct_keys() -> None:
    one, two = (KIT.bundle(MANIFEST, key, lane="pair") for key in (OTHER, SECOND))
    expected = replace(EXPECTED, lane="pair")
    assert isinstance(check(one, two, expected=expected), Verified)
    assert refused(check(one, one, expected=expected)) == (Reason.MISSING_ROLE, 8)


def test_8_a_key_without_a_role_in_the_lane_vouches_for_nothing() -> None:
    foreign = KIT.bundle(MANIFEST, OTHER, metadata_id="json")
    assert refused(check(foreign)) == (Reason.MISSING_ROLE, 8)
    verdict = check(foreign, BUNDLE)
    assert isinstance(verdict, Verified)
    assert verdict.vsa.metadata_id == "relu"


@pytest.mark.parametrize(
    "changes",
    [
        {"metadata_id": "json"},
        {"depends": (Digest.of(b"evil"),)},
        {"upstream_revision": Revision("c" * 40)},
        {"kernel": replace(KERNEL, revision=Revision("d" * 40))},
    ],
)
def test_8_roles_must_have_signed_the_same_claims(changes: dict[str, Any]) -> None:
    expected = replace(IN_PRODUCTION, revision=None)
    verdict = check(*both(**changes), expected=expected)
    assert refused(verdict) == (Reason.MISSING_ROLE, 8)
    assert isinstance(verdict, Rejected)
    assert "2 different claims" in verdict.message
    # A dissenting extra attestation spoils nothing that all roles agreed on.
    assert isinstance(check(*both(**changes), *both(), expected=expected), Verified)


def test_8_of_agreeing_decisions_the_one_that_ends_first_is_returned() -> None:
    soon = NOW + timedelta(hours=1)
    verdict = check(*both(valid_until=soon), expected=IN_PRODUCTION)
    assert isinstance(verdict, Verified)
    assert verdict.vsa.valid_until == soon


def test_a_bad_bundle_beside_a_good_one_is_told_but_does_not_block() -> None:
    verdict = check(b"{}", BUNDLE)
    assert isinstance(verdict, Verified)
    assert [step.number for step in verdict.steps if not step.ok] == [3]


def test_when_roles_are_missing_the_refusal_says_what_was_wrong_with_the_others() -> None:
    admitted, _ = both()
    verdict = check(admitted, b"{}", expected=IN_PRODUCTION)
    assert isinstance(verdict, Rejected)
    assert verdict.reason is Reason.MISSING_ROLE
    assert "'mediaType' is missing" in verdict.message


def test_reasons_are_stable_words() -> None:
    assert sorted(Reason) == [
        "bad-signature", "expired", "malformed", "missing-role", "no-attestation", "not-passed",
        "policy-not-allowed", "revoked", "revoked-key", "stale-trust", "unknown-key",
        "unknown-lane", "wrong-identity", "wrong-lane", "wrong-subject",
    ]  # fmt: skip


def test_canonical_bytes_are_not_needed_for_a_valid_signature() -> None:
    # The signed bytes are kept as they came: another writer's spacing verifies too.
    data = Bundle.parse(BUNDLE).envelope.payload
    spaced = data.replace(b'","', b'", "')
    assert strictjson.loads(spaced, what="x") == strictjson.loads(data, what="x")
    assert isinstance(check(resigned(spaced)), Verified)
