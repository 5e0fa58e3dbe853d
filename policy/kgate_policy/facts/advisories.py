"""What advisories say about a variant as facts: `kernel.vulnerabilities` and `kernel.feed`.

A stored report that cannot be read leads to absent facts; the built-in rules then deny.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kgate_core.clock import write_time
from kgate_core.errors import InvalidInput
from kgate_core.vulnerabilities import VulnerabilityReport

if TYPE_CHECKING:
    from kgate_core.evidence import Facts
    from kgate_core.vulnerabilities import Vulnerability

_TEXT = 1024  # characters of a sentence; facts are compared, not read in full


def advisory_facts(stated: Facts) -> Facts:
    """Return the facts of a stored report, nothing if there was no feed."""
    document = stated.get("vulnerabilities")
    if document is None:
        return {}
    try:
        report = VulnerabilityReport.from_json(document)
    except InvalidInput:
        return {}
    return {
        "feed": {"digest": str(report.feed), "date": write_time(report.feed_date)},
        "vulnerabilities": [_vulnerability(item) for item in report.found],
    }


def _vulnerability(item: Vulnerability) -> Facts:
    facts: Facts = {
        "id": item.id,
        "aliases": list(item.aliases),
        "severity": item.severity.label,
        "status": str(item.status),
        "source": item.source,
        "seen": item.seen[:_TEXT],
    }
    said = {"justification": item.justification, "author": item.author}
    return facts | {name: text for name, text in said.items() if text}
