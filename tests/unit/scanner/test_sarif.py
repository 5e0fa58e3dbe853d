from __future__ import annotations

import json
from dataclasses import replace

from kgate_core.digest import Digest
from kgate_core.evidence import ScanReport, Severity
from kgate_scanner.rules import all_rules
from kgate_scanner.rules_files import BYTECODE, GAVE_UP, SCRIPT
from kgate_scanner.rules_host import URLS
from kgate_scanner.sarif import write_sarif

REPORT = ScanReport(
    scanner="kgate-scanner/0.1.0+rules.abc",
    subject=Digest.of(b""),
    files={},
    summary={},
    findings=(
        BYTECODE.finding("a b/ä.pyc", "planted"),
        SCRIPT.finding("run.sh", "begins", line=3),
        URLS.finding("a.so", "one", offset=64),
    ),
)


def test_findings_are_results_with_places_levels_and_rules() -> None:
    document = json.loads(write_sarif([("build/torch-cpu", REPORT)]))
    assert document["version"] == "2.1.0"
    (run,) = document["runs"]
    driver = run["tool"]["driver"]
    assert driver["name"] == "kgate-scanner"
    assert [rule["id"] for rule in driver["rules"]] == list(all_rules())
    results = run["results"]
    assert [result["level"] for result in results] == ["error", "warning", "note"]
    places = [result["locations"][0]["physicalLocation"] for result in results]
    assert places == [
        {"artifactLocation": {"uri": "build/torch-cpu/a%20b/%C3%A4.pyc"}},
        {"artifactLocation": {"uri": "build/torch-cpu/run.sh"}, "region": {"startLine": 3}},
        {"artifactLocation": {"uri": "build/torch-cpu/a.so"}, "region": {"byteOffset": 64}},
    ]
    for result in results:
        assert driver["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
    assert len({result["partialFingerprints"]["kgate/v1"] for result in results}) == 3


def test_every_rule_says_what_why_and_what_to_do() -> None:
    rules = json.loads(write_sarif([(".", REPORT)]))["runs"][0]["tool"]["driver"]["rules"]
    for rule in rules:
        assert rule["shortDescription"]["text"]
        assert rule["fullDescription"]["text"]
        assert rule["help"]["text"]
        assert 0 <= float(rule["properties"]["security-severity"]) <= 10


def test_an_incomplete_scan_did_not_succeed() -> None:
    partial = replace(REPORT, complete=False, findings=(GAVE_UP.finding("a.so", "x"),))
    (run,) = json.loads(write_sarif([(".", REPORT), ("b", partial)]))["runs"]
    assert run["invocations"] == [{"executionSuccessful": False}]
    assert run["results"][-1]["locations"][0]["physicalLocation"]["artifactLocation"] == {
        "uri": "b/a.so"
    }


def test_no_reports_are_a_log_without_results() -> None:
    (run,) = json.loads(write_sarif([]))["runs"]
    assert run["results"] == []


def test_a_finding_of_a_rule_that_is_gone_is_still_told() -> None:
    old = replace(BYTECODE.finding("a", "x"), rule="KG-OLD-001", severity=Severity.LOW)
    (run,) = json.loads(write_sarif([(".", replace(REPORT, findings=(old,)))]))["runs"]
    assert run["results"][0]["ruleId"] == "KG-OLD-001"
    assert "ruleIndex" not in run["results"][0]
