"""SARIF 2.1.0 (OASIS): one result for each finding and for each rule that did not pass.

Results point at the file that pins the kernel, because that is what a person can change; the
kernel and the file inside it are logical locations. Fingerprints leave out what changes between
runs, so that a result that stays is recognised.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from kgate_core.digest import Digest
from kgate_core.evidence import Outcome, Severity
from kgate_policy.baseline import RULES
from kgate_policy.reports.vocabulary import SARIF_LEVEL, SARIF_SCORE, SEVERITY, word

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kgate_core.evidence import Finding, RuleResult
    from kgate_policy.reports.entries import Entry

SCHEMA: Final = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
MAX_RESULTS: Final = 25_000  # GitHub takes no more in one run


def sarif(
    entries: Sequence[Entry], *, version: str, anchor: str = "kgate.lock", home: str = ""
) -> str:
    """Return a SARIF log.

    `anchor` is the file in the repository that results point at; `home` is the address under
    which this project's docs/ are published, if they are.
    """
    results: list[dict[str, Any]] = []
    severities: dict[str, Severity] = {}
    for entry in entries:
        for finding in entry.findings:
            severities[finding.rule] = max(
                finding.severity, severities.get(finding.rule, Severity.INFO)
            )
            results.append(_of_finding(entry, finding, anchor))
        for result in entry.results:
            if result.outcome is not Outcome.PASS:
                severity = SEVERITY[word(result)]
                severities[result.rule] = max(severity, severities.get(result.rule, severity))
                results.append(_of_rule(entry, result, anchor))
    ids = sorted(severities)
    for item in results:
        item["ruleIndex"] = ids.index(item["ruleId"])
    driver: dict[str, Any] = {
        "name": "kgate",
        "version": version,
        "rules": [_rule(name, severities[name], home) for name in ids],
    }
    if home:
        driver["informationUri"] = home
    run: dict[str, Any] = {
        "tool": {"driver": driver},
        "columnKind": "utf16CodeUnits",
        "results": results[:MAX_RESULTS],
    }
    if len(results) > MAX_RESULTS:
        run["properties"] = {"resultsLeftOut": len(results) - MAX_RESULTS}
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=1) + "\n"


def _rule(name: str, severity: Severity, home: str) -> dict[str, Any]:
    known = RULES.get(name)
    described: dict[str, Any] = {
        "id": name,
        "defaultConfiguration": {"level": SARIF_LEVEL[severity]},
        "properties": {"security-severity": SARIF_SCORE[severity], "tags": ["security"]},
    }
    if home:
        page = f"policy-rules.md#{name}" if known is not None else f"rules/{name}.md"
        described["helpUri"] = f"{home}/docs/{page}"
    if known is not None:
        described["shortDescription"] = {"text": known.title}
        described["fullDescription"] = {"text": known.why}
        described["help"] = {"text": known.fix}
    return described


def _of_finding(entry: Entry, finding: Finding, anchor: str) -> dict[str, Any]:
    place = f"build/{entry.kernel.variant}/{finding.path}"
    text = f"{entry.name}: {place}: {finding.seen}"
    return _result(
        entry, finding.rule, SARIF_LEVEL[finding.severity], text, place, finding.path, anchor
    )


def _of_rule(entry: Entry, result: RuleResult, anchor: str) -> dict[str, Any]:
    level = SARIF_LEVEL[SEVERITY[word(result)]]
    text = f"{entry.name}: {result.seen}"
    if result.hint:
        text += f" → {result.hint}"
    place = f"build/{entry.kernel.variant}"
    return _result(entry, result.rule, level, text, place, "", anchor)


def _result(
    entry: Entry, rule: str, level: str, text: str, place: str, path: str, anchor: str
) -> dict[str, Any]:
    identity = f"{rule}\n{entry.kernel.purl}\n{entry.lane}\n{path}"
    return {
        "ruleId": rule,
        "level": level,
        "message": {"text": text},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": anchor},
                    "region": {"startLine": 1},
                },
                "logicalLocations": [
                    {"fullyQualifiedName": f"{entry.kernel.repo}/{place}", "kind": "resource"}
                ],
            }
        ],
        "partialFingerprints": {"kgate/v1": Digest.of(identity.encode()).hex},
        "properties": {"kernel": entry.kernel.purl, "lane": entry.lane},
    }
