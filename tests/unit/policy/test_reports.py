"""Reports: one vocabulary, every format well formed, hostile text harmless."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree as ET

import jsonschema
import pytest
import yaml

from kgate_core.evidence import Decision, Finding, Outcome, RuleResult, Severity
from kgate_policy import Policy, builtin_profile, evaluate
from kgate_policy.reports import (
    Entry,
    github_annotations,
    gitlab_quality,
    junit,
    markdown,
    notes,
    openreports,
    sarif,
)
from kgate_policy.reports.openreports import MAX_RESULTS, Group
from kgate_policy.reports.vocabulary import (
    GITHUB_COMMAND,
    GITLAB_SEVERITY,
    SARIF_LEVEL,
    SARIF_SCORE,
    SEVERITY,
    Word,
    word,
)
from tests.policykit import NOW, finding, good_evidence, with_findings, with_metadata

HOSTILE = "a|b](http://x) <img>\n::error::owned%0A\x00\x1b[31m"


def entry(evidence: Any = None, policy: Policy | None = None) -> Entry:
    """Return the entry of a real decision."""
    evidence = evidence or good_evidence()
    decision = evaluate(evidence, policy or builtin_profile("production"), now=NOW)
    return Entry.of(
        evidence.kernel,
        evidence.lane,
        decision,
        findings=evidence.scan.findings,
        manifest=evidence.manifest.digest,
    )


FINE = entry()
DIRTY = entry(with_metadata(provenance=None))
FOUND = entry(with_findings(finding("KG-ELF-001"), finding("KG-PY-005", Severity.MEDIUM)))
WARNED = entry(with_metadata(provenance=None), builtin_profile("dev"))
ERROR = replace(
    FINE, results=(RuleResult("r", Outcome.DENY, "the rule failed: OSError: no", "do it"),)
)
EVIL = replace(
    FINE,
    lane="production",
    results=(RuleResult("evil/1", Outcome.DENY, HOSTILE, HOSTILE),),
    findings=(Finding("KG-FILE-015", Severity.HIGH, HOSTILE, HOSTILE),),
)
ALL = [FINE, DIRTY, FOUND, WARNED, ERROR, EVIL]


def test_every_severity_and_word_has_a_name_in_every_format() -> None:
    for table in (GITHUB_COMMAND, GITLAB_SEVERITY, SARIF_LEVEL, SARIF_SCORE):
        assert set(table) == set(Severity)
    assert set(SEVERITY) == set(Word)


@pytest.mark.parametrize(
    ("outcome", "seen", "expected"),
    [
        (Outcome.PASS, "x", Word.PASS),
        (Outcome.WARN, "no answer: x", Word.WARN),
        (Outcome.DENY, "x", Word.FAIL),
        (Outcome.DENY, "no answer: x", Word.ERROR),
        (Outcome.DENY, "the rule failed: x", Word.ERROR),
    ],
)
def test_a_result_has_one_word(outcome: Outcome, seen: str, expected: Word) -> None:
    assert word(RuleResult("r", outcome, seen)) is expected


def test_an_entry_without_results_is_not_allowed() -> None:
    policy = builtin_profile("dev")
    empty = Entry.of(good_evidence().kernel, "x", Decision("p", policy.digest, (), NOW))
    assert not empty.allowed
    assert FINE.allowed
    assert not DIRTY.allowed


def test_the_markdown_summary_counts_and_names_what_to_do() -> None:
    text = markdown([FINE, DIRTY, DIRTY, FOUND], title="This change")
    assert text.startswith("## This change\n\n1 of 4 variants are allowed, 3 are denied.")
    assert "| 1 high, 1 medium | **denied** |" in text
    assert "* **no-dirty-build** (kernels-community/activation, 2 variants): " in text
    assert "  → Ask the publisher for a build from a clean commit." in text
    assert "### Warnings" in markdown([WARNED])
    assert markdown([]).endswith("0 of 0 variants are allowed, 0 are denied.\n")


def test_hostile_text_stays_text_in_markdown() -> None:
    text = markdown([EVIL])
    assert "\\<img\\>" in text
    assert "\\]" in text
    assert "a\\|b" in text
    assert "\n::error" not in text
    assert "\x1b" not in text


def test_a_long_table_is_cut_and_says_so() -> None:
    assert "50 more variants are not listed here." in markdown([FINE] * 250)


def sarif_log(entries: list[Entry], **options: Any) -> dict[str, Any]:
    """Return the parsed log."""
    log: dict[str, Any] = json.loads(sarif(entries, version="1.2.3", **options))
    return log


def test_sarif_results_refer_to_their_rules() -> None:
    log = sarif_log(ALL, home="https://docs.example.org")
    (run,) = log["runs"]
    rules = run["tool"]["driver"]["rules"]
    assert log["version"] == "2.1.0"
    assert run["tool"]["driver"]["informationUri"] == "https://docs.example.org"
    for result in run["results"]:
        rule = rules[result["ruleIndex"]]
        assert rule["id"] == result["ruleId"]
        assert result["level"] in {"note", "warning", "error"}
        location = result["locations"][0]
        assert location["physicalLocation"]["artifactLocation"] == {"uri": "kgate.lock"}
        assert location["logicalLocations"][0]["fullyQualifiedName"].startswith(
            "kernels-community/"
        )
    by_id = {rule["id"]: rule for rule in rules}
    dirty = by_id["no-dirty-build"]
    assert dirty["helpUri"] == "https://docs.example.org/docs/policy-rules.md#no-dirty-build"
    assert dirty["shortDescription"]["text"] == "Built from a clean commit"
    assert by_id["KG-PY-005"]["properties"]["security-severity"] == "5.0"


def test_sarif_of_nothing_and_of_what_passes_has_no_results() -> None:
    assert sarif_log([])["runs"][0]["results"] == []
    run = sarif_log([FINE])["runs"][0]
    assert run["results"] == []
    assert "informationUri" not in run["tool"]["driver"]


def test_sarif_fingerprints_stay_the_same_between_runs() -> None:
    def prints(entries: list[Entry]) -> set[str]:
        results = sarif_log(entries)["runs"][0]["results"]
        return {result["partialFingerprints"]["kgate/v1"] for result in results}

    changed = replace(DIRTY, results=tuple(replace(r, seen="other") for r in DIRTY.results))
    assert prints([DIRTY]) == prints([changed])
    assert len(prints([DIRTY])) == len(sarif_log([DIRTY])["runs"][0]["results"])


def test_junit_has_a_suite_for_each_variant_and_a_case_for_each_rule() -> None:
    root = ET.fromstring(junit(ALL))
    suites = root.findall("testsuite")
    assert len(suites) == len(ALL)
    assert int(root.attrib["tests"]) == len(root.findall(".//testcase"))
    assert int(root.attrib["failures"]) == len(root.findall(".//failure"))
    assert int(root.attrib["errors"]) == len(root.findall(".//error")) == 1
    for suite in suites:
        assert int(suite.attrib["tests"]) == len(suite.findall("testcase"))
        assert int(suite.attrib["failures"]) == len(suite.findall(".//failure"))
    warned = [case for case in suites[3] if case.find("system-out") is not None]
    assert {case.attrib["name"] for case in warned} >= {"no-dirty-build"}


def test_a_variant_without_results_is_an_error_in_junit() -> None:
    root = ET.fromstring(junit([replace(FINE, results=())]))
    assert root.attrib["errors"] == "1"


def test_annotations_come_most_severe_first_and_are_limited() -> None:
    lines = github_annotations(list(notes([WARNED, DIRTY]))).splitlines()
    kinds = [line.split(" ")[0] for line in lines]
    assert kinds == sorted(kinds, key=["::error", "::warning", "::notice"].index)
    many = github_annotations(list(notes([DIRTY] * 40))).splitlines()
    assert len(many) == 51
    assert many[-1] == "::notice::30 more are in the report"


def test_hostile_text_starts_no_workflow_command() -> None:
    text = github_annotations(list(notes([EVIL])))
    assert len(text.splitlines()) == 2
    assert all(
        line.startswith("::error file=kgate.lock,line=1,title=") for line in text.splitlines()
    )
    assert "owned%250A" in text


def test_gitlab_issues_have_what_gitlab_asks_for_once_each() -> None:
    issues = json.loads(gitlab_quality(list(notes([FOUND, FOUND, EVIL]))))
    fingerprints = [issue["fingerprint"] for issue in issues]
    assert len(set(fingerprints)) == len(fingerprints)
    for issue in issues:
        assert set(issue) == {"description", "check_name", "fingerprint", "severity", "location"}
        assert issue["severity"] in {"info", "minor", "major", "critical", "blocker"}
        assert issue["location"]["lines"]["begin"] == 1


RESULT: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["policy"],
    "properties": {
        **{key: {"type": "string"} for key in ("source", "policy", "rule", "category", "message")},
        "result": {"enum": ["pass", "fail", "warn", "error", "skip"]},
        "severity": {"enum": ["critical", "high", "medium", "low", "info"]},
        "scored": {"type": "boolean"},
        "timestamp": {
            "type": "object",
            "required": ["seconds", "nanos"],
            "properties": {"seconds": {"type": "integer"}, "nanos": {"type": "integer"}},
        },
        "properties": {"type": "object", "additionalProperties": {"type": "string"}},
    },
}
COUNTS = {"type": "object", "additionalProperties": {"type": "integer"}}


@pytest.mark.parametrize("group", Group)
def test_reports_have_the_fields_of_their_api(group: Group) -> None:
    text = openreports(ALL, now=NOW, group=group)
    version, kind = group.value
    (document,) = [d for d in yaml.load_all(text, yaml.CSafeLoader) if d["metadata"]["name"]]
    assert (document["apiVersion"], document["kind"]) == (version, kind)
    fields = {"apiVersion", "kind", "metadata", "summary", "results"}
    extra = {"source", "configuration"} if group is Group.OPENREPORTS else set()
    assert set(document) == fields | extra
    jsonschema.validate(document["summary"], COUNTS)
    results = jsonschema.Draft202012Validator({"type": "array", "items": RESULT})
    results.validate(document["results"])
    assert sum(document["summary"].values()) == len(document["results"])


def test_reports_are_one_for_each_commit_and_lane_with_a_name_that_stays() -> None:
    other = entry(good_evidence(repo="a/b"))
    experimental = replace(FINE, lane="experimental")
    names = [
        document["metadata"]["name"]
        for document in yaml.load_all(
            openreports([FINE, other, experimental, DIRTY], now=NOW), yaml.CSafeLoader
        )
    ]
    assert len(set(names)) == len(names) == 3
    again = yaml.load_all(openreports([FOUND], now=NOW), yaml.CSafeLoader)
    assert {document["metadata"]["name"] for document in again} < set(names)


def test_a_report_never_grows_without_end_and_drops_what_passed_first() -> None:
    results = tuple(RuleResult(f"r{n}", Outcome.PASS, "x") for n in range(2 * MAX_RESULTS))
    failed = RuleResult("bad", Outcome.DENY, "x")
    text = openreports([replace(FINE, results=(*results, failed))], now=NOW)
    (document,) = yaml.load_all(text, yaml.CSafeLoader)
    assert len(document["results"]) == MAX_RESULTS
    assert document["results"][0]["rule"] == "bad"
    assert document["summary"]["pass"] == 2 * MAX_RESULTS


def test_equal_input_gives_equal_bytes() -> None:
    assert sarif(ALL, version="1") == sarif(ALL, version="1")
    assert junit(ALL) == junit(ALL)
    assert openreports(ALL, now=NOW) == openreports(ALL, now=NOW)
