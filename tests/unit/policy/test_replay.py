"""Decisions asked again from bytes, and the card of a kernel that somebody wants to add."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kgate_core import strictjson
from kgate_core.digest import Digest
from kgate_core.errors import Conflict, InvalidInput, KgateError
from kgate_core.evidence import Evidence, Severity
from kgate_policy import builtin_profile, evaluate, load_policy
from kgate_policy.baseline import PACK
from kgate_policy.document import advice
from kgate_policy.profiles import PROFILES
from kgate_policy.replay import (
    evidence_bytes,
    policy_bytes,
    read_evidence,
    read_policy_bytes,
)
from kgate_policy.riskcard import risk_card
from tests.policykit import NOW, finding, good_evidence, with_findings, with_metadata

POLICY = load_policy(
    b"apiVersion: kgate.dev/v1\nkind: Policy\nname: ours\nextends: production\n"
    b"digests: {deny: ['sha256:" + b"0" * 64 + b"']}\n---\n"
    b"apiVersion: kgate.dev/v1\nkind: KernelPolicy\nmetadata: {name: files}\n"
    b"spec: {validations: [{expression: 'kernel.files.all(f, f.size > 0)'}]}\n"
)
EVIDENCE = [
    good_evidence(),
    with_findings(finding("KG-ELF-001")),
    with_metadata(fraction=0.5, note="ü"),
    replace(good_evidence(), scan=None, sbom=None, asked={}),
]


@pytest.mark.parametrize("evidence", EVIDENCE)
def test_a_decision_is_the_same_when_it_is_asked_again_from_bytes(evidence: Evidence) -> None:
    stored, rules = evidence_bytes(evidence), policy_bytes(POLICY)
    again = evaluate(read_evidence(stored), read_policy_bytes(rules), now=NOW)
    assert again == evaluate(evidence, POLICY, now=NOW)
    assert evidence_bytes(read_evidence(stored)) == stored
    assert Digest.of(rules) == POLICY.digest


@pytest.mark.parametrize("policy", PROFILES.values(), ids=PROFILES)
def test_every_profile_survives_being_written(policy: object) -> None:
    assert read_policy_bytes(policy_bytes(PROFILES[policy.name])) == policy  # type: ignore[attr-defined]  # a Policy


def test_a_policy_asked_with_other_rules_is_refused() -> None:
    data = policy_bytes(POLICY).replace(PACK.encode(), b"kgate-baseline/0")
    with pytest.raises(Conflict, match="kgate-baseline/0"):
        read_policy_bytes(data)


def changed(data: bytes, **fields: object) -> bytes:
    """Return a document with some fields replaced."""
    return strictjson.dumps(strictjson.loads(data, what="x") | fields)


BAD_POLICIES = [
    policy_bytes(POLICY) + b" ",
    changed(policy_bytes(POLICY), rules={"no-bytecode": "maybe"}),
    changed(policy_bytes(POLICY), rules={"no-such-rule": "deny"}),
    changed(policy_bytes(POLICY), parameters={}),
    changed(policy_bytes(POLICY), parameters={"more": []}),
    changed(policy_bytes(POLICY), schema="other"),
    changed(policy_bytes(POLICY), extra=1),
    b"[]",
]


@pytest.mark.parametrize("data", BAD_POLICIES)
def test_changed_policy_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(KgateError):
        read_policy_bytes(data)


GOOD = evidence_bytes(good_evidence())
BAD_EVIDENCE = [
    changed(GOOD, schema="other"),
    changed(GOOD, scan=1),
    changed(GOOD, metadata="[]"),
    changed(GOOD, metadata="{"),
    changed(GOOD, manifest="{}"),
    changed(GOOD, kernel="pkg:x"),
]


@pytest.mark.parametrize("data", BAD_EVIDENCE)
def test_changed_evidence_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput):
        read_evidence(data)


def test_what_a_policy_probably_does_not_mean_is_said() -> None:
    assert "is true for an empty list" in advice(POLICY)[0]
    assert advice(builtin_profile("dev")) == ()


def test_the_card_of_a_kernel_counts_and_names() -> None:
    policy = builtin_profile("production")
    first = good_evidence()
    found = with_findings(finding("KG-ELF-001"), finding("KG-PY-009", Severity.LOW))
    second = replace(found, kernel=replace(found.kernel, variant="torch-cuda"))
    card = risk_card([(item, evaluate(item, policy, now=NOW)) for item in (first, second)])
    assert card.denied == ("torch-cuda",)
    assert card.findings == (("high", 1), ("low", 1))
    assert card.signatures == ("verified",)
    text = card.to_markdown()
    assert text.startswith("### kernels-community/activation\n")
    assert "| findings | 1 high, 1 low |" in text
    assert "| denied | 1 of 2 variants: elf-well-formed, severity-threshold |" in text
    assert card.to_json()["findings"] == {"high": 1, "low": 1}
    fine = risk_card([(first, evaluate(first, policy, now=NOW))])
    assert "| denied | nothing |" in fine.to_markdown()


def test_a_card_is_about_one_repository() -> None:
    other = good_evidence(repo="a/b")
    decision = evaluate(other, builtin_profile("dev"), now=NOW)
    with pytest.raises(InvalidInput, match="one repository"):
        risk_card([])
    with pytest.raises(InvalidInput, match="one repository"):
        risk_card([(other, decision), (good_evidence(), decision)])
