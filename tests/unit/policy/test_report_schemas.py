"""Every report against the schema of those who read it, with the schemas as they publish them."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from lxml import etree

from kgate_core.digest import Digest
from kgate_core.evidence import Finding, Outcome, RuleResult, ScanReport, Severity
from kgate_policy import builtin_profile, evaluate
from kgate_policy.reports import Entry, gitlab_quality, junit, notes, openreports, sarif
from kgate_policy.reports.openreports import Group
from kgate_scanner.rules_files import BYTECODE, GAVE_UP, SCRIPT
from kgate_scanner.rules_host import URLS
from kgate_scanner.sarif import write_sarif
from tests.policykit import NOW, finding, good_evidence, with_findings, with_metadata

UPSTREAM = Path(__file__).parents[2] / "assets" / "upstream"
HOSTILE = "a|b](http://x) <img> & \"'\n::error::owned%0A\x00\x1b[31m ü"


def entry(evidence: Any) -> Entry:
    """Return the entry of a real decision."""
    decision = evaluate(evidence, builtin_profile("production"), now=NOW)
    return Entry.of(
        evidence.kernel,
        evidence.lane,
        decision,
        findings=evidence.scan.findings if evidence.scan else (),
        manifest=evidence.manifest.digest,
    )


FINE = entry(good_evidence())
ENTRIES = [
    FINE,
    entry(with_metadata(provenance=None)),
    entry(with_findings(finding("KG-ELF-001"), finding("KG-PY-005", Severity.MEDIUM))),
    replace(FINE, results=(RuleResult("r", Outcome.DENY, "the rule failed: OSError: no", "do"),)),
    replace(
        FINE,
        results=(RuleResult("evil", Outcome.DENY, HOSTILE, HOSTILE),),
        findings=(Finding("KG-X-001", Severity.HIGH, "a b\n<c>", HOSTILE, line=3),),
    ),
    replace(FINE, results=(), findings=()),
]


def sarif_schema() -> Any:
    schema = json.loads((UPSTREAM / "sarif-2.1.0-rtm.5.json").read_bytes())
    assert "2.1.0" in schema["title"]
    return jsonschema.Draft4Validator(schema, format_checker=jsonschema.FormatChecker())


def crd_schema(name: str, version: str) -> Any:
    document = yaml.safe_load((UPSTREAM / name).read_bytes())
    (found,) = [item for item in document["spec"]["versions"] if item["name"] == version]
    schema = closed(found["schema"]["openAPIV3Schema"])
    return jsonschema.Draft202012Validator(schema)


def closed(schema: Any) -> Any:
    """Return a CRD's schema that refuses fields that an API server would drop in silence."""
    schema = copy.deepcopy(schema)
    waiting = [schema]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            fields = item.get("properties")
            if isinstance(fields, dict) and item.get("type") == "object" and fields:
                item.setdefault("additionalProperties", False)
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)
    # `metadata` is Kubernetes' own; the CRD says nothing about it.
    schema["properties"]["metadata"] = {"type": "object"}
    return schema


def test_policy_sarif_is_valid_against_the_published_schema() -> None:
    schema = sarif_schema()
    for entries in (ENTRIES, [], [FINE]):
        schema.validate(json.loads(sarif(entries, version="1.0", home="https://x.example/d/")))


def test_scanner_sarif_is_valid_against_the_published_schema() -> None:
    report = ScanReport(
        scanner="kgate-scanner/0.1.0+rules.abc",
        subject=Digest.of(b""),
        files={},
        summary={},
        findings=(
            BYTECODE.finding("a b/ä.pyc", "planted"),
            SCRIPT.finding("run.sh", HOSTILE, line=3),
            URLS.finding("a.so", "one", offset=64),
        ),
    )
    partial = replace(report, complete=False, findings=(GAVE_UP.finding("a.so", "x"),))
    schema = sarif_schema()
    for reports in ([("build/torch-cpu", report), ("b", partial)], []):
        schema.validate(json.loads(write_sarif(reports)))


def test_the_sarif_schema_refuses_what_is_not_sarif() -> None:
    document = json.loads(sarif(ENTRIES, version="1.0"))
    document["runs"][0]["results"][0]["level"] = "fatal"
    with pytest.raises(jsonschema.ValidationError):
        sarif_schema().validate(document)


@pytest.mark.parametrize(
    ("group", "name"),
    [
        (Group.OPENREPORTS, "openreports.io_reports.yaml"),
        (Group.WGPOLICY, "wgpolicyk8s.io_policyreports.yaml"),
    ],
)
def test_cluster_reports_are_valid_against_the_published_definitions(
    group: Group, name: str
) -> None:
    text = openreports(ENTRIES, now=NOW, group=group)
    documents = [item for item in yaml.safe_load_all(text) if item]
    schema = crd_schema(name, group.value[0].partition("/")[2])
    assert documents
    for document in documents:
        schema.validate(document)
    documents[0]["results"][0]["result"] = "perhaps"
    with pytest.raises(jsonschema.ValidationError):
        schema.validate(documents[0])


def test_junit_is_valid_against_the_schema_of_jenkins() -> None:
    schema = etree.XMLSchema(etree.parse(UPSTREAM / "jenkins-junit.xsd"))
    for entries in (ENTRIES, [], [FINE]):
        schema.assertValid(etree.fromstring(junit(entries).encode()))
    assert not schema.validate(etree.fromstring("<testsuites><testcase/></testsuites>"))


# https://docs.gitlab.com/ci/testing/code_quality/#code-quality-report-format; there is no schema.
GITLAB: Any = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["description", "check_name", "fingerprint", "severity", "location"],
        "properties": {
            "description": {"type": "string", "minLength": 1},
            "check_name": {"type": "string", "minLength": 1},
            "fingerprint": {"type": "string", "minLength": 1},
            "severity": {"enum": ["info", "minor", "major", "critical", "blocker"]},
            "location": {
                "type": "object",
                "required": ["path", "lines"],
                "properties": {
                    "path": {"type": "string", "pattern": "^(?!\\./|/)"},
                    "lines": {
                        "type": "object",
                        "required": ["begin"],
                        "properties": {"begin": {"type": "integer", "minimum": 1}},
                    },
                },
            },
        },
    },
}


def test_gitlab_issues_have_the_documented_fields_of_the_documented_types() -> None:
    issues = json.loads(gitlab_quality(tuple(notes(ENTRIES))))
    jsonschema.validate(issues, GITLAB)
    assert issues
