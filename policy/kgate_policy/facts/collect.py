"""Turns evidence into the facts of `schema`: plain JSON values that expressions see.

Hostile evidence (a `metadata.json` with fields of the wrong type) leads to absent facts, never
to facts of another type. Sizes are checked by `limits`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from kgate_core.evidence import Severity
from kgate_core.kernel import Variant
from kgate_policy.facts.advisories import advisory_facts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kgate_core.evidence import Evidence, Facts, RuleResult, ScanReport

_IMAGE: Final[Mapping[str, type]] = {"name": str, "found": int, "of": int}
_ALWAYS: Final = frozenset({"passed", "submitter", "finishedAt", "digest"})
_MEASURED: Final[Mapping[str, type]] = {
    "passed": bool,
    "maxAbsErrorPpm": int,
    "maxRelErrorPpm": int,
    "speedupPpm": int,
    "submitter": str,
    "gpu": str,
    "finishedAt": str,
    "digest": str,
}
_TEXT: Final = 1024  # characters of a sentence; facts are compared, not read in full


def kernel_facts(evidence: Evidence, results: Iterable[RuleResult] = ()) -> Facts:
    """Return the facts about one variant, with the answers of the built-in rules."""
    kernel, manifest = evidence.kernel, evidence.manifest
    variant = Variant.parse(kernel.variant)
    scanned: Mapping[str, Any] = {} if evidence.scan is None else evidence.scan.files
    facts: Facts = {
        "origin": kernel.origin,
        "type": str(kernel.repo_type),
        "repo": str(kernel.repo),
        "org": kernel.repo.org,
        "name": kernel.repo.name,
        "revision": str(kernel.revision),
        "lane": evidence.lane,
        "variant": kernel.variant,
        "framework": str(variant.framework),
        "backend": variant.backend,
        "noarch": variant.noarch,
        "digest": str(manifest.digest),
        "size": manifest.size,
        "files": [
            {"path": entry.path, "size": entry.size, "digest": str(entry.digest)}
            | _kept(scanned.get(entry.path), {"kind": str})
            for entry in manifest.files
        ],
        "metadata": _metadata(evidence.metadata),
        "depends": _strings(evidence.imported.get("depends")),
        "architectures": [],
        "libraries": [],
        "imports": [],
        "rules": {result.rule: str(result.outcome) for result in results},
    }
    facts |= _kept(evidence.imported, {"pin": str})
    for name, value in (
        ("cpu", variant.cpu),
        ("os", variant.os),
        ("sbom", None if evidence.sbom is None else str(evidence.sbom)),
        ("importedAt", evidence.imported.get("fetchedAt")),
        ("scannedAt", evidence.imported.get("scannedAt")),
    ):
        if isinstance(value, str):
            facts[name] = value
    signature = _kept(evidence.imported.get("upstreamSignature"), {"status": str, "detail": str})
    if "status" in signature:
        facts["signature"] = signature
    card = _kept(evidence.imported.get("card"), {"size": int})
    if card:
        record = _mapping(evidence.imported["card"])
        lists = {key: _strings(record.get(key)) for key in ("fields", "headings")}
        facts["card"] = card | lists
    facts |= stated_facts(evidence.stated) | advisory_facts(evidence.stated)
    if evidence.scan is not None:
        facts["scan"] = _scan(evidence.scan)
        facts |= _seen(evidence.scan.summary)
    return facts


def stated_facts(stated: Facts) -> Facts:
    """Return the facts `images` and `qualification`; what has another shape counts as absent."""
    images = stated.get("images")
    known = [_kept(item, _IMAGE) for item in images] if isinstance(images, list) else []
    facts: Facts = {"images": [item for item in known if len(item) == len(_IMAGE)]}
    result = _kept(stated.get("qualification"), _MEASURED)
    if result.keys() >= _ALWAYS:
        facts["qualification"] = result
    return facts


def _scan(scan: ScanReport) -> Facts:
    counts = dict.fromkeys((level.label for level in Severity), 0)
    findings = []
    for finding in scan.findings:
        counts[finding.severity.label] += 1
        item: Facts = {
            "rule": finding.rule,
            "severity": finding.severity.label,
            "path": finding.path,
            "seen": finding.seen[:_TEXT],
        }
        if finding.line is not None:
            item["line"] = finding.line
        findings.append(item)
    return {
        "scanner": scan.scanner,
        "complete": scan.complete,
        "worst": scan.worst.label,
        "findings": findings,
        "counts": counts,
    }


def _seen(summary: Facts) -> Facts:
    device, host, python = (_mapping(summary.get(key)) for key in ("device", "host", "python"))
    archs = _mapping(device.get("archs"))
    return {
        "architectures": sorted({arch for names in archs.values() for arch in _strings(names)}),
        "libraries": _strings(host.get("needed")),
        "imports": _strings(python.get("imports")),
    }


def _metadata(document: Facts) -> Facts:
    facts = _kept(document, {"id": str, "name": str, "version": int, "license": str, "source": str})
    backend = _mapping(document.get("backend"))
    if isinstance(backend.get("archs"), list):
        facts["archs"] = _strings(backend["archs"])
    if isinstance(document.get("python-depends"), list):
        facts["pythonDepends"] = _strings(document["python-depends"])
    if isinstance(document.get("kernel-depends"), list):
        facts["kernelDepends"] = [
            repo
            for item in document["kernel-depends"]
            if isinstance(repo := _mapping(item).get("repo-id", item), str)
        ]
    provenance = _mapping(document.get("provenance"))
    for name, key in (("builder", "kernel-builder"), ("kernel", "kernel")):
        if isinstance(provenance.get(key), dict):
            part = _kept(provenance[key], {"version": str, "commit": str, "dirty": bool})
            facts[name] = part
    return facts


def _kept(value: object, kinds: Mapping[str, type]) -> Facts:
    """Return the fields that have the promised type."""
    return {
        key: item
        for key, item in _mapping(value).items()
        if key in kinds and type(item) is kinds[key]
    }


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _strings(value: object) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []
