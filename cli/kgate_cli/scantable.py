"""Scan reports as rows for a table and as JSON. It changes nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from kgate_cli.output import size
from kgate_core.evidence import Severity

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from kgate_cli.output import Output
    from kgate_core.evidence import ScanReport
    from kgate_scanner.paths import Scanned

MOST_ROWS: Final = 40
_OPTIONS: Final = ("num_warps", "num_stages", "shared")
_NOT_NATIVE: Final = frozenset({"text", "metadata", "empty", "signature", "data"})


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


def show_caches(scanned: Iterable[Scanned], output: Output) -> None:
    """Print which compile caches there are, and the kernels of Triton's."""
    caches = [cache for item in scanned for cache in item.report.summary.get("caches", ())]
    if not caches:
        return
    output.say()
    for cache in caches:
        kernels = f", {cache['kernels']} kernels" if "kernels" in cache else ""
        output.say(
            f"A compile cache of {cache['kind']}: {cache['files']} files{kernels},"
            f" {cache['hostLibraries']} host libraries, {cache['pickles']} pickles."
        )
    entries = [entry for cache in caches for entry in cache.get("entries", ())]
    if entries:
        output.table(
            ("COMPILED KERNEL", "FOR", "CODE", "OPTIONS", "RECORD"),
            [
                (
                    entry["name"],
                    " ".join(entry["compiled"]) or entry["target"],
                    " ".join(entry["code"]) or "none",
                    _options(entry["options"]),
                    entry["path"],
                )
                for entry in entries[:MOST_ROWS]
            ],
        )
    if len(entries) > MOST_ROWS:
        output.say(f"{len(entries) - MOST_ROWS} more are in the output of --json.")


def _options(options: dict[str, Any]) -> str:
    shown = [f"{key}={options[key]}" for key in _OPTIONS if key in options]
    return " ".join(shown)


def show_extra(extra: dict[str, Any], output: Output) -> None:
    """Print what was not read again, what an SBOM does not list, and code for other GPUs."""
    if reused := extra.get("reused"):
        output.say()
        output.say(f"{reused} files were read by an earlier scan.")
    missing = extra.get("unlisted", [])
    if "unlisted" in extra:
        output.say()
        output.say(f"The SBOM does not list {len(missing)} of the files and device images here.")
        native = [item for item in missing if item["kind"] not in _NOT_NATIVE]
        if native:
            output.table(
                ("NOT LISTED", "WHERE", "SHA256"),
                [
                    (
                        " ".join((item["kind"], item.get("target", ""))).strip(),
                        item["path"] if item["name"] == "." else f"{item['name']}/{item['path']}",
                        item["digest"].removeprefix("sha256:")[:16],
                    )
                    for item in native[:MOST_ROWS]
                ],
            )
        left = len(missing) - min(len(native), MOST_ROWS)
        if left:
            output.say(f"{left} more are in the output of --json.")
    if gpus := extra.get("gpus"):
        output.say()
        output.say(
            f"{size(gpus['foreignBytes'])} of {size(gpus['bytes'])} of device code"
            f" ({gpus['foreignPercent']} %) is for none of {', '.join(gpus['owned'])}:"
            f" {' '.join(gpus['foreignTargets']) or 'nothing'}"
        )


def to_json(path: str, scanned: Iterable[Scanned]) -> dict[str, Any]:
    """Return everything that was seen."""
    return {
        "path": path,
        "reports": [
            {
                "name": item.name,
                "variant": item.variant,
                **json.loads(item.report.to_bytes()),
            }
            for item in scanned
        ],
    }
