"""What advisories say about a variant, for people. It changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kgate_core.clock import write_time

if TYPE_CHECKING:
    from kgate_cli.output import Output
    from kgate_core.vulnerabilities import Vulnerability, VulnerabilityReport


def show_vulnerabilities(output: Output, report: VulnerabilityReport | None) -> None:
    """Print what counts, how much was set aside and by whom, and how old the feed is."""
    if report is None:
        return
    for item in report.counting:
        output.plain(f"    advisory  {told(item)}")
    for item in report.suppressed:
        output.plain(f"    set aside {item.id}: {item.justification or item.status}, {item.author}")
    for ignored in report.ignored:
        output.plain(f"    not believed  {ignored.author} about {ignored.id}")
    output.plain(
        f"    feed      {report.feed.short}… of {write_time(report.feed_date)}:"
        f" {len(report.counting)} count, {len(report.suppressed)} set aside"
    )


def told(item: Vulnerability) -> str:
    """Return one vulnerability in a line."""
    return f"{item.severity.label} {item.status} {item.id} ({item.source}): {item.seen}"
