from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from kgate_core.digest import Digest
from kgate_core.evidence import Outcome, Severity
from kgate_core.vulnerabilities import IgnoredVex, Status, Vulnerability
from kgate_policy import evaluate
from kgate_policy.document import load_policy
from kgate_policy.facts.collect import kernel_facts
from kgate_policy.profiles import builtin_profile
from kgate_policy.samples import sample_vulnerabilities
from tests.policykit import NOW, good_evidence, with_statements

if TYPE_CHECKING:
    from kgate_core.evidence import Evidence, RuleResult
    from kgate_core.vulnerabilities import VulnerabilityReport

SUBJECT = good_evidence().manifest.digest
OLD = "2026-01-01T00:00:00Z"


def vulnerability(
    severity: Severity = Severity.HIGH, status: Status = Status.AFFECTED
) -> Vulnerability:
    return Vulnerability("CVE-2026-7", severity, status, "vendor", "commit a@b")


def under(report: VulnerabilityReport | dict[str, Any] | None) -> Evidence:
    """Return good evidence with what advisories say."""
    document = report if report is None or isinstance(report, dict) else report.to_json()
    return with_statements(vulnerabilities=document)


def result(evidence: Evidence, rule: str, profile: str = "production") -> RuleResult:
    decision = evaluate(evidence, builtin_profile(profile), now=NOW)
    return next(found for found in decision.results if found.rule == rule)


@pytest.mark.parametrize(
    ("severity", "status", "expected"),
    [
        (Severity.CRITICAL, Status.AFFECTED, Outcome.DENY),
        (Severity.HIGH, Status.AFFECTED, Outcome.DENY),
        (Severity.MEDIUM, Status.AFFECTED, Outcome.WARN),
        (Severity.LOW, Status.AFFECTED, Outcome.PASS),
        (Severity.CRITICAL, Status.UNKNOWN, Outcome.WARN),
        (Severity.LOW, Status.UNKNOWN, Outcome.PASS),
    ],
)
def test_a_known_vulnerability_weighs_as_much_as_its_severity(
    severity: Severity, status: Status, expected: Outcome
) -> None:
    found = result(
        under(sample_vulnerabilities(SUBJECT, vulnerability(severity, status))),
        "no-known-vulnerability",
    )

    assert found.outcome is expected
    assert "1 set aside" in found.seen
    if expected is not Outcome.PASS:
        assert "CVE-2026-7" in found.seen


def test_what_was_set_aside_does_not_count_and_is_counted() -> None:
    aside = replace(vulnerability(), status=Status.FIXED, author="security@example.com")

    found = result(under(sample_vulnerabilities(SUBJECT, aside)), "no-known-vulnerability")

    assert found.outcome is Outcome.PASS
    assert "2 set aside" in found.seen


def test_a_report_about_other_bytes_or_a_malformed_one_denies() -> None:
    other = sample_vulnerabilities(Digest.of(b"x"))

    assert result(under(other), "no-known-vulnerability").outcome is Outcome.DENY
    broken = under({"schema": "kgate.dev/vulnerabilities/v9"})
    assert result(broken, "no-known-vulnerability").outcome is Outcome.DENY
    assert result(broken, "advisories-fresh", "dev").outcome is Outcome.DENY


def test_t52_an_old_feed_is_a_fact_that_profiles_weigh() -> None:
    old = under(sample_vulnerabilities(SUBJECT, date=OLD))

    assert result(old, "advisories-fresh").outcome is Outcome.DENY
    assert result(old, "advisories-fresh", "dev").outcome is Outcome.WARN
    assert OLD in result(old, "advisories-fresh").seen


def test_what_a_fresh_feed_says_does_not_name_its_date() -> None:
    # Else every newer feed would be a new decision about every kernel.
    one = under(sample_vulnerabilities(SUBJECT, date="2026-11-01T00:00:00Z"))
    other = under(sample_vulnerabilities(SUBJECT, date="2026-11-09T00:00:00Z"))

    assert result(one, "advisories-fresh") == result(other, "advisories-fresh")


def test_t52_vex_by_a_stranger_is_warned_about() -> None:
    report = replace(
        sample_vulnerabilities(SUBJECT), ignored=(IgnoredVex("CVE-2026-7", "mallory@example.org"),)
    )
    found = result(under(report), "vex-authorised")

    assert found.outcome is Outcome.WARN
    assert "mallory@example.org" in found.seen


def test_a_site_without_a_feed_is_denied_only_if_it_asks_for_one() -> None:
    without = under(None)
    policy = (
        b"apiVersion: kgate.dev/v1\nkind: Policy\nname: strict\nextends: production\n"
        b"rules: {advisories-consulted: deny}\nadvisories: {maxDays: 7}\n"
    )
    strict = load_policy(policy)

    assert evaluate(without, builtin_profile("production"), now=NOW).allowed
    denials = evaluate(without, strict, now=NOW).denials
    assert [found.rule for found in denials] == ["advisories-consulted"]
    older = (NOW - timedelta(days=8)).strftime("%Y-%m-%dT%H:%M:%SZ")
    denials = evaluate(under(sample_vulnerabilities(SUBJECT, date=older)), strict, now=NOW).denials
    assert [found.rule for found in denials] == ["advisories-fresh"]


def test_expressions_see_every_vulnerability_and_the_feed() -> None:
    facts = kernel_facts(under(sample_vulnerabilities(SUBJECT, vulnerability())))

    assert [item["status"] for item in facts["vulnerabilities"]] == ["not_affected", "affected"]
    assert facts["vulnerabilities"][0]["justification"] == "vulnerable_code_not_present"
    assert facts["feed"]["date"] == "2026-11-01T00:00:00Z"
    assert "feed" not in kernel_facts(under(None))
    assert "feed" not in kernel_facts(under({"schema": 7}))
