"""Built-in rules about the scan as a whole: is it there, complete, by whom, how bad.

What single findings mean is in `contents`.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

from kgate_core.evidence import Severity
from kgate_policy.baseline.contents import NO_SCAN, named
from kgate_policy.rules import Answer, Rule, denied, listed, passed, warned

if TYPE_CHECKING:
    from kgate_core.evidence import Evidence
    from kgate_policy.parameters import Parameters


def _scan_complete(evidence: Evidence, _: Parameters) -> Answer:
    scan = evidence.scan
    if scan is None:
        return denied(NO_SCAN)
    if scan.subject != evidence.manifest.digest:
        return denied(f"the scan is of {scan.subject}, the variant is {evidence.manifest.digest}")
    missing = [entry.path for entry in evidence.manifest.files if entry.path not in scan.files]
    if missing:
        return denied(f"not scanned: {listed(missing)}")
    gaps = [finding for finding in scan.findings if finding.rule.startswith("KG-SCAN-")]
    if gaps:
        return denied(listed(map(named, gaps)))
    if not scan.complete:
        return denied("the scanner did not finish: what it did not find proves nothing")
    return passed(f"{scan.scanner} read all {len(evidence.manifest.files)} files")


def _scanner_allowed(evidence: Evidence, parameters: Parameters) -> Answer:
    if evidence.scan is None:
        return denied(NO_SCAN)
    scanner = evidence.scan.scanner
    if not parameters.scanners_allow:
        return passed(f"{scanner}; no allow list is set")
    if any(fnmatchcase(scanner, pattern) for pattern in parameters.scanners_allow):
        return passed(f"{scanner} is allowed")
    return denied(f"scanned by {scanner}, which is not on the allow list")


def _severity(evidence: Evidence, parameters: Parameters) -> Answer:
    if evidence.scan is None:
        return denied(NO_SCAN)
    found = sorted(evidence.scan.findings, key=lambda finding: -finding.severity)
    deny, warn = parameters.severity_deny, parameters.severity_warn
    over = [finding for finding in found if finding.severity >= deny]
    if over:
        return denied(f"{len(over)} at or above {deny.label}: {listed(map(named, over))}")
    near = [finding for finding in found if finding.severity >= warn]
    if near:
        return warned(f"{len(near)} at or above {warn.label}: {listed(map(named, near))}")
    worst = evidence.scan.worst if found else Severity.INFO
    return passed(f"{len(found)} findings, the worst is {worst.label}")


def _sbom(evidence: Evidence, _: Parameters) -> Answer:
    if evidence.sbom is None:
        return denied("there is no SBOM")
    return passed(f"SBOM {evidence.sbom}")


RULES: Final = (
    Rule(
        "scan-complete",
        "Scanned to the end",
        "A scan that is missing, of other bytes or cut short says nothing: files made to break "
        "parsers do exactly that.",
        "Run `kgate sync` again; if the scanner stops at the same file, do not use the kernel.",
        "Run-time kernels go through the same scanning as images.",
        _scan_complete,
        asks=(
            "kernel.scan.complete",
            "kernel.scan.scanner",
        ),
    ),
    Rule(
        "scanner-allowed",
        "Scanned by a scanner that is recent enough",
        "A scanner that was replaced does not know what was learnt since. Its reports stay valid "
        "only as long as somebody says so.",
        "Scan again with `kgate sync`, or add the scanner to `scanners.allow`.",
        "Scans are repeated when scanners learn.",
        _scanner_allowed,
        asks=("kernel.scan.scanner",),
    ),
    Rule(
        "severity-threshold",
        "No finding above the threshold",
        "What the scanner finds is graded; a profile says how much is too much.",
        "Read the findings with `kgate show`, then use another version or ask the publisher.",
        "Findings above the agreed severity block.",
        _severity,
        asks=(
            "kernel.scan.worst",
            "kernel.scan.findings",
        ),
    ),
    Rule(
        "sbom-present",
        "Has an SBOM",
        "An image's own SBOM does not list the shared objects that arrive at run time.",
        "Run `kgate sync` again; it writes the SBOM.",
        "What is loaded is in an SBOM.",
        _sbom,
        asks=("kernel.sbom",),
    ),
)
