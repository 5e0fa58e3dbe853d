"""Writes findings as SARIF 2.1.0, the format that code-scanning dashboards read.

One run holds all reports; equal input gives equal bytes. Levels follow severities and nothing is
suppressed: exceptions are a matter of policies.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from kgate_core import strictjson
from kgate_core.evidence import Severity
from kgate_scanner.rules import all_rules

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kgate_core.evidence import Finding, ScanReport
    from kgate_scanner.rules import Rule

_SCHEMA: Final = "https://json.schemastore.org/sarif-2.1.0.json"
_LEVELS: Final = {
    Severity.CRITICAL: "error",
    Severity.HIGH: "error",
    Severity.MEDIUM: "warning",
    Severity.LOW: "note",
    Severity.INFO: "note",
}
_SCORES: Final = {
    # What dashboards sort by: the CVSS bands of the same names.
    Severity.CRITICAL: "9.5",
    Severity.HIGH: "8.0",
    Severity.MEDIUM: "5.5",
    Severity.LOW: "3.0",
    Severity.INFO: "0.0",
}


def write_sarif(reports: Iterable[tuple[str, ScanReport]]) -> bytes:
    """Return one SARIF log; each report comes with the directory that its paths are relative to."""
    every = list(reports)
    rules = list(all_rules().values())
    index = {rule.id: number for number, rule in enumerate(rules)}
    scanner = every[0][1].scanner if every else "kgate-scanner/0"
    name, _, version = scanner.partition("/")
    run = {
        "tool": {
            "driver": {
                "name": name,
                "semanticVersion": version,
                "rules": [_rule(rule) for rule in rules],
            }
        },
        "invocations": [{"executionSuccessful": all(report.complete for _, report in every)}],
        "results": [
            _result(base, finding, index) for base, report in every for finding in report.findings
        ],
    }
    return strictjson.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]})


def _rule(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.id,
        "shortDescription": {"text": rule.title},
        "fullDescription": {"text": rule.why},
        "help": {"text": rule.fix},
        "defaultConfiguration": {"level": _LEVELS[rule.severity]},
        "properties": {
            "security-severity": _SCORES[rule.severity],
            "tags": ["security", rule.id.split("-")[1].lower()],
        },
    }


def _result(base: str, finding: Finding, index: Mapping[str, int]) -> dict[str, Any]:
    path = finding.path if base in {"", "."} else f"{base}/{finding.path}"
    location: dict[str, Any] = {"artifactLocation": {"uri": quote(path)}}
    if finding.line:
        location["region"] = {"startLine": finding.line}
    elif finding.offset is not None:
        location["region"] = {"byteOffset": finding.offset}
    print_of = "\0".join((finding.rule, path, finding.seen, str(finding.offset)))
    result: dict[str, Any] = {
        "ruleId": finding.rule,
        "level": _LEVELS[finding.severity],
        "message": {"text": finding.seen},
        "locations": [{"physicalLocation": location}],
        # A line number may move without the finding being another one.
        "partialFingerprints": {"kgate/v1": hashlib.sha256(print_of.encode()).hexdigest()},
    }
    if finding.rule in index:
        result["ruleIndex"] = index[finding.rule]
    return result
