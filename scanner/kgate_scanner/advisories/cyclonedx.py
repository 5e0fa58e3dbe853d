"""An SBOM with what advisories say about it: CycloneDX `vulnerabilities` with their analysis.

The attested SBOM itself never holds any: what is in a kernel does not change with the news. This
makes another document of it, with a serial number of its own, for tools that read both at once.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final
from uuid import NAMESPACE_URL, uuid5

from kgate_core import strictjson
from kgate_core.clock import write_time
from kgate_core.errors import InvalidInput
from kgate_core.vulnerabilities import Status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kgate_core.vulnerabilities import Vulnerability, VulnerabilityReport

MAX_SBOM: Final = 256 * 1024**2  # bytes
_STATES: Final = {
    Status.AFFECTED: "exploitable",
    Status.UNKNOWN: "in_triage",
    Status.FIXED: "resolved",
    Status.NOT_AFFECTED: "not_affected",
}
# CycloneDX has no word for "cannot be controlled by an adversary": it stands in the detail then.
_JUSTIFICATIONS: Final = {
    "component_not_present": "code_not_present",
    "vulnerable_code_not_present": "code_not_present",
    "vulnerable_code_not_in_execute_path": "code_not_reachable",
    "inline_mitigations_already_exist": "protected_by_mitigating_control",
}
_OWN_WORDS: Final = frozenset(
    {
        "code_not_present",
        "code_not_reachable",
        "requires_configuration",
        "requires_dependency",
        "requires_environment",
        "protected_by_compiler",
        "protected_at_runtime",
        "protected_at_perimeter",
        "protected_by_mitigating_control",
    }
)


def with_vulnerabilities(sbom: bytes, report: VulnerabilityReport) -> bytes:
    """Return the SBOM with what a report says; raises InvalidInput if it is no SBOM of kgate's."""
    what = "SBOM"
    document = strictjson.loads(sbom, what=what, max_bytes=MAX_SBOM, floats=True)
    root = strictjson.take(
        strictjson.take(
            strictjson.take(document, "metadata", dict, what=what), "component", dict, what=what
        ),
        "bom-ref",
        str,
        what=what,
    )
    references = [str(item.get("bom-ref", "")) for item in document.get("components", [])]
    graph: list[dict[str, Any]] = document.get("dependencies", [])
    inner = [ref for item in graph if item.get("ref") == root for ref in item.get("dependsOn", [])]
    if len(inner) != 1:
        raise InvalidInput(f"{what}: it is not about one variant")
    serial = f"{document.get('serialNumber', '')} {report.feed}"
    document["serialNumber"] = f"urn:uuid:{uuid5(NAMESPACE_URL, serial)}"
    document["vulnerabilities"] = [
        _entry(item, list(_affected(item, references)) or inner, report) for item in report.found
    ]
    return json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n"


def _affected(item: Vulnerability, references: list[str]) -> Iterator[str]:
    for place in item.places:
        yield from (ref for ref in references if "#build/" in ref and ref.endswith(f"/{place}"))


def _entry(item: Vulnerability, affected: list[str], report: VulnerabilityReport) -> dict[str, Any]:
    analysis: dict[str, Any] = {"state": _STATES[item.status]}
    word = _JUSTIFICATIONS.get(item.justification, item.justification)
    if word in _OWN_WORDS:
        analysis["justification"] = word
    detail = ": ".join(filter(None, (item.author, item.justification, item.statement)))
    if detail:
        analysis["detail"] = detail
    return {
        "id": item.id,
        "source": {"name": item.source},
        "ratings": [{"severity": item.severity.label, "method": "other"}],
        "description": item.seen,
        "updated": write_time(report.feed_date),
        "analysis": analysis,
        "affects": [{"ref": ref} for ref in affected],
    }
