from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from kgate_core.bundle import Bundle
from kgate_core.digest import Digest
from kgate_core.errors import Conflict, InvalidInput, NotFound
from kgate_core.evidence import Decision, Outcome, RuleResult, Severity
from kgate_core.kernel import KernelRef, RepoType, Revision
from kgate_core.keys import Algorithm
from kgate_core.statement import Statement
from kgate_core.verify import Expected, Reason, Rejected, Verified, verify
from kgate_core.vsa import PREDICATE_TYPE as VSA_TYPE
from kgate_core.vsa import Vsa
from kgate_core.vulnerabilities import Status, Vulnerability, VulnerabilityReport
from kgate_signer import trustchanges
from kgate_signer.attest import VSA_LIFETIME, Attestor, StoredEvidence
from kgate_signer.keys import FileKey
from kgate_signer.modelsigning import PREDICATE_TYPE as MODEL_TYPE
from kgate_signer.modelsigning import sign_model
from kgate_signer.predicates import IMPORT_TYPE, SBOM_TYPE, VULNS_EXTENSION, VULNS_TYPE
from tests.trustkit import (
    EXPERIMENTAL,
    KERNEL,
    NOW,
    POLICY,
    PRODUCTION,
    SITE,
    make_trust,
    manifest_of,
    signing_key,
)
from tests.unit.signer.test_predicates import QUALIFIED, RECORD, SBOM

if TYPE_CHECKING:
    from kgate_core.kernel import KernelId

KIT = make_trust()
MANIFEST = manifest_of()
ALLOWED = Decision("baseline", POLICY, (RuleResult("publisher", Outcome.PASS, "acme"),), NOW)
EVIDENCE = StoredEvidence(
    KERNEL, EXPERIMENTAL, MANIFEST, "relu", (Digest.of(b"dep"),), RECORD, ALLOWED, SBOM
)


@dataclass
class Shelf:
    """An evidence store with one thing in it."""

    stored: StoredEvidence | None = EVIDENCE

    def evidence(self, *_: KernelId | str) -> StoredEvidence | None:
        return self.stored


def attestor(stored: StoredEvidence | None = EVIDENCE) -> Attestor:
    return Attestor(SITE, KIT.admit, Shelf(stored))


def statement(bundle: bytes) -> Statement:
    return Statement.parse(Bundle.parse(bundle).envelope.payload)


def test_what_is_attested_is_verified_by_a_pod() -> None:
    made = attestor().attest(KERNEL, EXPERIMENTAL, MANIFEST.digest, NOW)
    expected = Expected(KERNEL.variant, EXPERIMENTAL, KERNEL.repo, KERNEL.revision)
    verdict = verify(expected, MANIFEST, made.bundles, KIT.trusted(), now=NOW)
    assert isinstance(verdict, Verified)
    assert verdict.vsa == Vsa(
        kernel=KERNEL,
        upstream_revision=RECORD.upstream_revision,
        lane=EXPERIMENTAL,
        site=SITE,
        manifest=MANIFEST.digest,
        metadata_id="relu",
        depends=EVIDENCE.depends,
        policy_uri="kgate:policy/baseline",
        policy_digest=POLICY,
        passed=True,
        verified_at=NOW,
        valid_until=NOW + VSA_LIFETIME,
        inputs=(Digest.of(made.imported), Digest.of(made.sbom or b"")),
        feed=None,
    )


def test_each_attestation_is_one_statement_about_the_same_subjects() -> None:
    made = attestor().attest(KERNEL, EXPERIMENTAL, MANIFEST.digest, NOW)
    statements = [statement(bundle) for bundle in made.bundles]
    assert [found.predicate_type for found in statements[1:]] == [
        IMPORT_TYPE,
        SBOM_TYPE,
        MODEL_TYPE,
    ]
    assert len({found.subjects for found in statements[:3]}) == 1


def test_a_key_that_model_signing_cannot_read_makes_no_model_signature() -> None:
    key = FileKey.generate(Algorithm.ED25519)
    made = Attestor(SITE, key, Shelf()).attest(KERNEL, EXPERIMENTAL, MANIFEST.digest, NOW)
    assert made.model is None
    with pytest.raises(InvalidInput, match="with a key of type ed25519"):
        sign_model(MANIFEST, "acme/relu", key)


def test_a_model_signature_is_no_decision() -> None:
    expected = Expected(KERNEL.variant, EXPERIMENTAL)
    model = sign_model(MANIFEST, "acme/relu", KIT.admit)
    verdict = verify(expected, MANIFEST, [model], KIT.trusted(), now=NOW)
    assert isinstance(verdict, Rejected)
    assert verdict.reason is Reason.MISSING_ROLE


def test_without_an_sbom_there_are_three_attestations() -> None:
    bare = replace(EVIDENCE, sbom=None)
    made = attestor(bare).attest(KERNEL, EXPERIMENTAL, MANIFEST.digest, NOW)
    assert made.bundles == (made.vsa, made.imported, made.model)


def test_what_advisories_say_is_attested_and_the_decision_names_the_feed() -> None:
    feed = Digest.of(b"feed")
    found = (
        Vulnerability("CVE-1", Severity.LOW, Status.AFFECTED, "test", "commit x"),
        Vulnerability(
            "CVE-2",
            Severity.HIGH,
            Status.NOT_AFFECTED,
            "test",
            "cuda toolkit 12.8",
            justification="vulnerable_code_not_present",
            author="kgate-advisories/1",
        ),
    )
    report = VulnerabilityReport(MANIFEST.digest, "kgate-advisories/1", feed, NOW, found)
    stored = replace(EVIDENCE, vulnerabilities=report.to_bytes())
    made = attestor(stored).attest(KERNEL, EXPERIMENTAL, MANIFEST.digest, NOW)

    assert made.vulnerabilities is not None
    assert made.vulnerabilities in made.bundles
    said = statement(made.vulnerabilities)
    assert said.predicate_type == VULNS_TYPE
    scanner = said.predicate["scanner"]
    assert scanner["db"]["version"] == str(feed)
    assert [item["id"] for item in scanner["result"]] == ["CVE-1"]
    assert VulnerabilityReport.from_json(said.predicate[VULNS_EXTENSION]) == report
    decided = Vsa.from_predicate(statement(made.vsa).predicate)
    assert decided.feed == feed
    assert Digest.of(made.vulnerabilities) in decided.inputs


def test_advisories_that_were_compared_with_other_bytes_are_not_attested() -> None:
    report = VulnerabilityReport(Digest.of(b"x"), "kgate-advisories/1", Digest.of(b"feed"), NOW)
    stored = replace(EVIDENCE, vulnerabilities=report.to_bytes())

    with pytest.raises(InvalidInput, match="not this variant"):
        attestor(stored).attest(KERNEL, EXPERIMENTAL, MANIFEST.digest, NOW)


def test_a_stored_qualification_result_is_attested_and_named_by_the_decision() -> None:
    result = {**QUALIFIED, "manifest": str(MANIFEST.digest)}
    stored = replace(EVIDENCE, qualification=json.dumps(result).encode())
    made = attestor(stored).attest(KERNEL, EXPERIMENTAL, MANIFEST.digest, NOW)
    assert made.qualification is not None
    assert made.qualification in made.bundles
    assert statement(made.qualification).predicate == result
    inputs = Vsa.from_predicate(statement(made.vsa).predicate).inputs
    assert Digest.of(made.qualification) in inputs


def test_an_ingest_key_signs_what_was_found_and_never_what_was_decided() -> None:
    ingest = FileKey.generate()
    signer = replace(attestor(), ingest=ingest)
    made = signer.attest(KERNEL, EXPERIMENTAL, MANIFEST.digest, NOW)
    by = {statement(data).predicate_type: Bundle.parse(data).hint for data in made.bundles}
    assert by[IMPORT_TYPE] == by[SBOM_TYPE] == ingest.public_key().hint
    assert by[VSA_TYPE] == KIT.admit.public_key().hint
    expected = Expected(KERNEL.variant, EXPERIMENTAL, KERNEL.repo, KERNEL.revision)
    assert isinstance(verify(expected, MANIFEST, made.bundles, KIT.trusted(), now=NOW), Verified)
    # A decision by the key of what is found counts for nothing, registered or not.
    entry = replace(signing_key(ingest), role="ingest")
    kit = KIT.changed(trustchanges.add_key(KIT.trust, entry, KIT.offline, now=NOW))
    forged = kit.bundle(MANIFEST, ingest)
    verdict = verify(expected, MANIFEST, [forged, *made.bundles[1:]], kit.trusted(), now=NOW)
    assert isinstance(verdict, Rejected)
    assert verdict.reason is Reason.MISSING_ROLE


def test_a_second_person_approves_the_same_claims() -> None:
    inputs = (Digest.of(b"what the person looked at"),)
    evidence = replace(EVIDENCE, lane=PRODUCTION)
    first = attestor(evidence).attest(KERNEL, PRODUCTION, MANIFEST.digest, NOW)
    approver = Attestor(SITE, KIT.approve, Shelf(evidence))
    second = approver.approve(KERNEL, PRODUCTION, MANIFEST.digest, inputs, NOW)
    expected = Expected(KERNEL.variant, PRODUCTION, KERNEL.repo, KERNEL.revision)
    verdict = verify(expected, MANIFEST, [first.vsa, second], KIT.trusted(), now=NOW)
    assert isinstance(verdict, Verified)
    assert Vsa.from_predicate(statement(second).predicate).inputs == inputs


def test_a_decision_is_not_made_young_by_signing_it_again() -> None:
    decided = replace(EVIDENCE, decision=replace(ALLOWED, decided_at=NOW - VSA_LIFETIME))
    again = attestor(decided).attest(
        KERNEL, EXPERIMENTAL, MANIFEST.digest, NOW - timedelta(seconds=1)
    )
    assert Vsa.from_predicate(statement(again.vsa).predicate).valid_until == NOW
    with pytest.raises(Conflict, match="counted until 2026-11-21T12:00:00Z") as caught:
        attestor(decided).attest(KERNEL, EXPERIMENTAL, MANIFEST.digest, NOW)
    assert "kgate sync" in caught.value.hint


def test_without_evidence_nothing_is_signed() -> None:
    with pytest.raises(NotFound, match=r"no evidence for acme/relu@aaaaaaaaaaaa torch-cpu"):
        attestor(None).attest(KERNEL, EXPERIMENTAL, MANIFEST.digest, NOW)


@pytest.mark.parametrize(
    "stored",
    [
        replace(EVIDENCE, kernel=replace(KERNEL, revision=Revision("b" * 40))),
        replace(EVIDENCE, lane=PRODUCTION),
        replace(EVIDENCE, manifest=manifest_of({"a": b""})),
        replace(EVIDENCE, imported=replace(RECORD, origin="https://other.test")),
        replace(EVIDENCE, imported=replace(RECORD, repo=KernelRef("acme", "gelu"))),
        replace(EVIDENCE, imported=replace(RECORD, repo_type=RepoType.MODEL)),
        replace(EVIDENCE, imported=replace(RECORD, variant="torch-cuda")),
        replace(EVIDENCE, decision=replace(ALLOWED, results=())),
        replace(
            EVIDENCE,
            decision=replace(ALLOWED, results=(RuleResult("signed", Outcome.DENY, "no"),)),
        ),
    ],
    ids=[
        "revision", "lane", "manifest", "origin", "repo", "type", "variant", "no rule", "denied",
    ],
)  # fmt: skip
def test_evidence_about_something_else_or_denied_is_not_signed(stored: StoredEvidence) -> None:
    for key in (KIT.admit, KIT.approve):
        signer = Attestor(SITE, key, Shelf(stored))
        with pytest.raises(Conflict):
            signer.attest(KERNEL, EXPERIMENTAL, MANIFEST.digest, NOW)
        with pytest.raises(Conflict):
            signer.approve(KERNEL, EXPERIMENTAL, MANIFEST.digest, (), NOW)


def test_a_denial_names_the_rules() -> None:
    denied = replace(ALLOWED, results=(RuleResult("signed", Outcome.DENY, "no"),))
    with pytest.raises(Conflict, match="was not allowed: signed"):
        attestor(replace(EVIDENCE, decision=denied)).attest(
            KERNEL, EXPERIMENTAL, MANIFEST.digest, NOW
        )
    with pytest.raises(Conflict, match="no rule was asked"):
        attestor(replace(EVIDENCE, decision=replace(ALLOWED, results=()))).attest(
            KERNEL, EXPERIMENTAL, MANIFEST.digest, NOW
        )
