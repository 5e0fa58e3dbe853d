from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from kgate_core import strictjson
from kgate_core.digest import Digest
from kgate_core.errors import InvalidInput
from kgate_core.evidence import (
    Decision,
    Evidence,
    Finding,
    Outcome,
    RuleResult,
    ScanReport,
    Severity,
)
from tests.trustkit import KERNEL, NOW, manifest_of

FINDING = Finding("KG-ELF-003", Severity.HIGH, "a.so", "RUNPATH is /tmp", offset=12, line=3)
REPORT = ScanReport(
    "kgate-scanner/0.1.0", Digest.of(b"m"), {"a.so": {"size": 1}}, {"kernels": 0}, (FINDING,)
)
PASSED = RuleResult("known-publisher", Outcome.PASS, "acme")
WARNED = RuleResult("small", Outcome.WARN, "2 GB", "split it")
DENIED = RuleResult("signed", Outcome.DENY, "no signature", "ask the publisher")
DECISION = Decision("baseline", Digest.of(b"p"), (PASSED, WARNED), NOW)


def test_severities_are_ordered_words() -> None:
    assert [level.label for level in sorted(Severity)] == [
        "info",
        "low",
        "medium",
        "high",
        "critical",
    ]
    assert Severity.parse("high") is Severity.HIGH
    with pytest.raises(InvalidInput, match="unknown severity 'urgent'; known are info, low"):
        Severity.parse("urgent")


def test_a_finding_is_read_back_as_it_was_written_without_empty_fields() -> None:
    plain = replace(FINDING, offset=None, line=None)
    assert set(plain.to_json()) == {"rule", "severity", "path", "seen"}
    for finding in (FINDING, plain):
        assert Finding.from_json(finding.to_json()) == finding


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (FINDING.to_json() | {"offset": "1"}, "offset and line are integers"),
        (FINDING.to_json() | {"severity": "x"}, "unknown severity"),
        ({}, "'rule' is missing"),
        ([], "expected an object"),
    ],
)
def test_a_malformed_finding_is_refused(data: Any, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        Finding.from_json(data)


def test_a_scan_report_has_one_byte_sequence_and_is_read_back() -> None:
    assert ScanReport.from_bytes(REPORT.to_bytes()) == REPORT
    partial = replace(REPORT, complete=False, findings=())
    assert ScanReport.from_bytes(partial.to_bytes()) == partial
    assert (REPORT.worst, partial.worst) == (Severity.HIGH, Severity.INFO)


def test_a_report_of_another_schema_is_refused() -> None:
    data = REPORT.to_bytes().replace(b"scan/v1", b"scan/v2")
    with pytest.raises(InvalidInput, match=r"unknown schema .*v2"):
        ScanReport.from_bytes(data)
    with pytest.raises(InvalidInput, match="expected an object"):
        ScanReport.from_bytes(
            strictjson.dumps(strictjson.loads(REPORT.to_bytes(), what="x") | {"findings": [1]})
        )


def test_evidence_holds_everything_about_one_variant() -> None:
    evidence = Evidence(KERNEL, "experimental", manifest_of(), {}, REPORT, None, {"pin": "v1"})
    assert evidence.asked == {}


def test_a_decision_allows_only_if_a_rule_was_asked_and_none_denied() -> None:
    assert DECISION.allowed
    assert DECISION.warnings == (WARNED,)
    denied = replace(DECISION, results=(PASSED, DENIED))
    assert not denied.allowed
    assert denied.denials == (DENIED,)
    assert not replace(DECISION, results=()).allowed


def test_a_decision_is_read_back_as_it_was_written() -> None:
    for decision in (DECISION, replace(DECISION, results=(DENIED,))):
        assert Decision.from_json(decision.to_json()) == decision
    precise = replace(DECISION, decided_at=datetime(2026, 1, 1, 0, 0, 0, 5, tzinfo=UTC))
    assert precise.to_json()["decidedAt"] == "2026-01-01T00:00:00Z"


def test_a_decision_whose_answer_does_not_follow_from_its_rules_is_refused() -> None:
    forged = replace(DECISION, results=(DENIED,)).to_json() | {"allowed": True}
    with pytest.raises(InvalidInput, match="does not follow"):
        Decision.from_json(forged)
    with pytest.raises(InvalidInput, match="unknown outcome 'maybe'"):
        RuleResult.from_json(DENIED.to_json() | {"outcome": "maybe"})
