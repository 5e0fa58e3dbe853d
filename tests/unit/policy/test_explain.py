"""Explaining decisions, comparing policies, testing them in YAML, the page of rules."""

from __future__ import annotations

from pathlib import Path

import pytest

from kgate_core.errors import InvalidInput
from kgate_core.evidence import Outcome
from kgate_policy import Policy, builtin_profile, evaluate, load_policy
from kgate_policy.baseline import RULES
from kgate_policy.difference import difference
from kgate_policy.explain import explain, fact_shown
from kgate_policy.facts.schema import RECORDS
from kgate_policy.pages import rules_page
from kgate_policy.profiles import PROFILES
from kgate_policy.rules import Level
from kgate_policy.samples import sample_evidence
from kgate_policy.unittests import load_cases, run_cases
from tests.policykit import COMMIT, NOW, good_evidence, with_import, with_metadata

DOCS = Path(__file__).parents[3] / "docs"
PRODUCTION = builtin_profile("production")
UNSIGNED = with_import(upstreamSignature={"status": "missing"})
EXPRESSION = (
    "apiVersion: kgate.dev/v1\nkind: Policy\nname: ours\nextends: production\n---\n"
    "apiVersion: kgate.dev/v1\nkind: KernelPolicy\nmetadata: {name: rocm-only}\n"
    "spec: {validations: [{expression: kernel.backend == 'rocm'}]}\n"
)


def test_an_explanation_names_rule_fact_value_and_fix_denials_first() -> None:
    decision = evaluate(UNSIGNED, PRODUCTION, now=NOW)
    found = explain(UNSIGNED, PRODUCTION, decision)
    first = found.rules[0]
    assert (first.rule, first.outcome, first.level) == (
        "require-upstream-signature",
        Outcome.DENY,
        "deny",
    )
    assert [(fact.path, fact.value) for fact in first.facts] == [
        ("kernel.signature.status", "missing"),
        ("kernel.signature.detail", "absent"),
    ]
    assert first.fix.startswith("Ask the publisher to sign")
    assert first.page == "docs/policy-rules.md#require-upstream-signature"
    assert found.kernel == f"kernels-community/activation@{COMMIT}"
    assert len(found.rules) == sum(level is not Level.OFF for level in PRODUCTION.rules.values())
    assert not found.allowed


def test_one_rule_can_be_explained_alone() -> None:
    policy = load_policy(EXPRESSION.encode())
    decision = evaluate(good_evidence(), policy, now=NOW)
    (only,) = explain(good_evidence(), policy, decision, rule="rocm-only").rules
    assert only.level == "expression"
    assert only.seen == "failed: kernel.backend == 'rocm' (kernel.backend is cuda)"
    assert explain(good_evidence(), policy, decision, rule="nothing").rules == ()


def test_an_explanation_can_be_written_as_json() -> None:
    decision = evaluate(UNSIGNED, PRODUCTION, now=NOW)
    document = explain(UNSIGNED, PRODUCTION, decision, rule="no-dirty-build").to_json()
    assert document["rules"][0]["facts"] == {
        "kernel.metadata.kernel.dirty": "false",
        "kernel.metadata.builder.dirty": "false",
    }
    assert document["allowed"] is False


SHOWN = [
    ("x", "text", "text"),
    ("x", ["a", "b"], "2: a, b"),
    ("x", [], "none"),
    ("x", [{}], "1 items"),
    ("x", {"a": 1}, "1 fields"),
    ("x", True, "true"),
    ("x.y", "no record", "absent"),
    ("x", "y" * 500, "y" * 160 + "…"),
]


@pytest.mark.parametrize(("path", "value", "expected"), SHOWN)
def test_facts_are_shown_in_short(path: str, value: object, expected: str) -> None:
    assert fact_shown(path, {"x": value}) == expected


def test_every_fact_that_a_rule_names_is_in_the_schema() -> None:
    records = {record.name: {f.name: f.type for f in record.fields} for record in RECORDS}
    for rule in RULES.values():
        assert rule.asks
        for path in rule.asks:
            kind = "Kernel"
            for part in path.split(".")[1:]:
                kind = records[kind][part]


def test_the_page_of_rules_is_written_from_the_register() -> None:
    assert (DOCS / "policy-rules.md").read_text() == rules_page()


def test_two_policies_are_compared_over_an_inventory() -> None:
    inventory = [good_evidence(), UNSIGNED, with_metadata(provenance=None)]
    found = difference(builtin_profile("staging"), PRODUCTION, inventory, now=NOW)
    assert found.asked == 3
    assert len(found.changes) == 2
    assert len(found.newly_denied) == 2
    assert not found.newly_allowed
    rules = {item.rule for change in found.changes for item in change.rules}
    assert rules == {"require-upstream-signature", "no-dirty-build", "provenance-present"}
    back = difference(PRODUCTION, builtin_profile("staging"), inventory, now=NOW)
    assert len(back.newly_allowed) == 2
    assert back.to_json()["newlyAllowed"] == 2


def test_a_rule_that_is_dropped_without_effect_is_no_change() -> None:
    fewer = Policy("fewer", {"no-bytecode": Level.DENY})
    assert difference(PRODUCTION, fewer, [good_evidence()], now=NOW).changes == ()


def test_a_change_names_rules_that_only_one_policy_asks() -> None:
    fewer = Policy("fewer", {"no-bytecode": Level.DENY})
    (change,) = difference(fewer, PRODUCTION, [UNSIGNED], now=NOW).changes
    assert change.to_json()["rules"][0]["before"] is None


@pytest.mark.parametrize("profile", PROFILES)
def test_the_sample_passes_every_profile(profile: str) -> None:
    decision = evaluate(sample_evidence(), builtin_profile(profile), now=NOW)
    assert decision.allowed
    assert not decision.warnings


HEAD = "apiVersion: kgate.dev/v1\nkind: PolicyTest\nname: ours\ncases:\n"
CASES = (
    HEAD
    + """\
  - {name: the sample is fine, expect: pass}
  - name: a dirty build is denied
    kernel: {metadata: {provenance: null}}
    expect: deny
    rules: {no-dirty-build: deny, no-bytecode: pass}
  - name: bytecode is denied
    kernel: {files: [a.py, a.pyc]}
    expect: deny
  - name: a finding in between warns
    kernel:
      repo: example/other
      variant: torch-cpu
      lane: experimental
      findings: [{rule: KG-PY-005, severity: medium, path: a.py, seen: something}]
    expect: warn
  - name: branches, broken signatures, missing scans and dependencies are denied
    kernel:
      pin: main
      signature: failed
      scanned: false
      depends: [a/b@main]
      unmet: [c/d]
    expect: deny
    rules:
      pinned-commit: deny
      upstream-signature-valid: deny
      scan-complete: deny
      dependencies-pinned: deny
"""
)


def test_policies_are_tested_in_yaml() -> None:
    results = run_cases(load_cases(CASES.encode()), PRODUCTION, now=NOW)
    assert [item.complaints for item in results] == [()] * 5
    assert all(item.passed for item in results)


def test_a_failed_case_says_what_was_expected_and_what_came() -> None:
    text = HEAD + (
        "  - name: wrong\n    expect: deny\n"
        "    rules: {no-bytecode: deny, no-such-rule: pass}\n"
        "  - {name: also wrong, expect: pass, kernel: {pin: main}}\n"
    )
    wrong, also = run_cases(load_cases(text.encode()), PRODUCTION, now=NOW)
    assert wrong.complaints == (
        "expected deny, but it is pass",
        "no-bytecode: expected deny, but it is pass: source only",
        "no-such-rule: expected pass, but it was not asked",
    )
    assert "pinned-commit: the pin is 'main'" in also.complaints[0]
    assert wrong.case.where == "policy, line 5"


def test_a_case_can_bring_further_facts() -> None:
    policy = load_policy(
        EXPRESSION.replace("kernel.backend == 'rocm'", "mirror.site == 'a'").encode()
    )
    text = HEAD + (
        "  - {name: here, expect: pass, with: {mirror: {site: a}}}\n"
        "  - {name: there, expect: deny, with: {mirror: {site: b}}}\n"
    )
    assert all(item.passed for item in run_cases(load_cases(text.encode()), policy, now=NOW))


MALFORMED = [
    (HEAD + "  []\n", "a test without cases proves nothing"),
    (HEAD + "  - {name: a}\n", "the field 'expect' is missing"),
    (HEAD + "  - {name: a, expect: allowed}\n", "expected one of pass, warn, deny"),
    (HEAD + "  - {name: a, expect: deny, kernel: {file: []}}\n", "there is no such field"),
    (HEAD + "  - {name: a, expect: deny, kernel: {repo: x}}\n", "not a repository name"),
    (HEAD + "  - {name: a, expect: deny, kernel: {files: [../x]}}\n", "may not be absolute"),
    (
        HEAD + "  - {name: a, expect: deny, kernel: {findings: [{rule: X, severity: odd}]}}\n",
        "unknown severity 'odd'",
    ),
    (HEAD + "  - {name: a, expect: deny}\n  - {name: a, expect: deny}\n", "the name 'a'"),
]


@pytest.mark.parametrize(("text", "message"), MALFORMED)
def test_a_malformed_test_is_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        load_cases(text.encode())


def test_no_tests_at_all_is_not_a_success() -> None:
    with pytest.raises(InvalidInput, match="there are no policy tests"):
        run_cases([], PRODUCTION, now=NOW)
