"""Scan reports of whatever a person names: a path on this machine, or a kernel of the mirror."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kgate_core.errors import NotFound

if TYPE_CHECKING:
    from kgate_cli.output import Output
    from kgate_core.evidence import ScanReport


def read_reports(named: str, config_path: Path, output: Output) -> dict[str, ScanReport]:
    """Return the reports of a path (scanned now) or a reference (as stored), by variant or name.

    Raises NotFound if it is neither, or if a reference means several revisions.
    """
    path = Path(named)
    if path.exists():
        from kgate_scanner.paths import scan_path

        with output.progress(f"scanning {named}"):
            scanned = scan_path(path)
        return {item.variant or item.name: item.report for item in scanned}
    return _stored(named, config_path)


def _stored(reference: str, config_path: Path) -> dict[str, ScanReport]:
    from kgate_cli.options import open_mirror
    from kgate_core.evidence import ScanReport
    from kgate_mirror_server.inventory import find
    from kgate_mirror_server.ports import EvidenceKind

    if not config_path.exists():
        raise NotFound(
            f"{reference} is neither a path here nor, without {config_path}, a mirrored kernel",
            hint="give a path that exists, or the site's configuration with --config",
        )
    with open_mirror(config_path) as mirror:
        found = find(mirror.catalog, reference)
        commits = {item.upstream for item in found.publications}
        commits |= {item.upstream for item in found.denials}
        revisions = sorted(map(str, commits))
        if len(revisions) > 1:
            listed = ", ".join(f"{reference.partition('@')[0]}@{name[:12]}" for name in revisions)
            raise NotFound(f"{reference} means several revisions", hint=f"name one of {listed}")
        evidence = {
            item.variant: item.evidence
            for publication in found.publications
            for item in publication.variants
            if not reference.startswith("sha256:") or str(item.manifest) == reference
        } | {item.variant: item.evidence for item in found.denials}
        return {
            name: ScanReport.from_bytes(mirror.room.read(kinds[EvidenceKind.SCAN]))
            for name, kinds in sorted(evidence.items())
            if EvidenceKind.SCAN in kinds
        }
