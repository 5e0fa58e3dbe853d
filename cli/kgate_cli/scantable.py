"""Scan reports as rows for a table and as JSON. It changes nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from kgate_core.evidence import Severity

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from kgate_core.evidence import ScanReport
    from kgate_scanner.paths import Scanned


def archs_of(report: ScanReport) -> str:
    """Return the GPU targets of a report in one line."""
    return " ".join(
        sorted(
            arch
            for group in report.summary.get("device", {}).get("archs", {}).values()
            for arch in group
        )
    )


def counts_of(report: ScanReport) -> str:
    """Return how many findings there are of the three worst severities."""
    counts = dict.fromkeys(reversed(Severity), 0)
    for finding in report.findings:
        counts[finding.severity] += 1
    words = [f"{count} {level.label}" for level, count in counts.items() if count]
    return " ".join(words[:3]) or "none"


def matrix_rows(scanned: Iterable[Scanned]) -> list[tuple[str, ...]]:
    """Return one row for each thing that was scanned."""
    rows: list[tuple[str, ...]] = []
    for item in scanned:
        device = item.report.summary.get("device", {})
        rows.append(
            (
                item.name,
                str(item.report.summary.get("host", {}).get("libraries", 0)),
                archs_of(item.report) or "none",
                str(device.get("images", 0)),
                str(device.get("kernels", 0)),
                counts_of(item.report) + ("" if item.report.complete else " (incomplete)"),
            )
        )
    return rows


def findings_rows(scanned: Sequence[Scanned], least: Severity) -> list[tuple[str, ...]]:
    """Return one row for each finding of at least this severity."""
    return [
        (
            finding.severity.label,
            finding.rule,
            (finding.path if item.name == "." else f"{item.name}/{finding.path}")
            + (f"+0x{finding.offset:x}" if finding.offset is not None else "")
            + (f":{finding.line}" if finding.line is not None else ""),
            finding.seen,
        )
        for item in scanned
        for finding in item.report.findings
        if finding.severity >= least
    ]


def to_json(path: Path, scanned: Iterable[Scanned]) -> dict[str, Any]:
    """Return everything that was seen."""
    return {
        "path": str(path),
        "reports": [
            {
                "name": item.name,
                "variant": item.variant,
                **json.loads(item.report.to_bytes()),
            }
            for item in scanned
        ],
    }
