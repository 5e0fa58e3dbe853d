"""What the site's feed says about one scanned variant; no bytes of it are read again."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from kgate_core.vulnerabilities import VulnerabilityReport

if TYPE_CHECKING:
    from kgate_core.evidence import Evidence, ScanReport
    from kgate_core.kernel import KernelId
    from kgate_mirror_server.app import Mirror

STATED: Final = "vulnerabilities"
"""Under which name a policy is asked about it."""


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


def with_present_feed(mirror: Mirror, evidence: Evidence) -> Evidence:
    """Return evidence as it is under the feed of today; without a feed, as it was stored."""
    if evidence.scan is None:
        return evidence
    said = vulnerabilities_of(mirror, evidence.kernel, evidence.scan)
    if said is None:
        return evidence
    return replace(evidence, stated={**evidence.stated, STATED: said.to_json()})


def unless_changed(mirror: Mirror, evidence: Evidence) -> Evidence | None:
    """Return evidence under the feed of today, None if that says something else about it.

    That the feed is newer is no difference.
    """
    today = with_present_feed(mirror, evidence)
    return today if _said(today) == _said(evidence) else None


def _said(evidence: Evidence) -> tuple[object, ...] | None:
    document = evidence.stated.get(STATED)
    return None if document is None else VulnerabilityReport.from_json(document).says
