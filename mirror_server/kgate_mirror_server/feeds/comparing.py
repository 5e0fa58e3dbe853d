"""What the site's feed says about one scanned variant; no bytes of it are read again."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kgate_core.evidence import ScanReport
    from kgate_core.kernel import KernelId
    from kgate_core.vulnerabilities import VulnerabilityReport
    from kgate_mirror_server.app import Mirror


def vulnerabilities_of(
    mirror: Mirror, kernel: KernelId, report: ScanReport
) -> VulnerabilityReport | None:
    """Return what the feed says about a variant at upstream's commit; None without a feed."""
    if mirror.feed is None:
        return None
    from kgate_scanner.advisories.inventory import take_inventory  # noqa: PLC0415  # many have none
    from kgate_scanner.advisories.matching import match  # noqa: PLC0415

    parts = take_inventory(report, kernel)
    return match(mirror.feed, parts, report.subject, mirror.config.feeds.vex_authors)
