"""Advisories for `kgate scan --feed`: read as they are, for looking only.

No signature, pin or age is checked: what a site decides rests on `kgate feed import` alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from kgate_core.errors import InvalidInput
from kgate_core.vulnerabilities import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from kgate_cli.output import Output
    from kgate_core.evidence import Severity
    from kgate_core.vulnerabilities import VulnerabilityReport
    from kgate_scanner.advisories.matching import Feed
    from kgate_scanner.paths import Scanned

F = TypeVar("F", bound="Callable[..., Any]")


@dataclass(frozen=True, slots=True)
class Compared:
    """What advisories say about everything that was scanned, by its name."""

    reports: dict[str, VulnerabilityReport] = field(default_factory=dict)
    """Nothing if none were asked."""

    def reaches(self, severity: Severity) -> bool:
        """Return whether something is affected at or above a severity."""
        return any(
            item.status is Status.AFFECTED and item.severity >= severity
            for report in self.reports.values()
            for item in report.counting
        )

    def to_json(self) -> dict[str, Any]:
        """Return the field `advisories`, nothing if none were asked."""
        found = {name: report.to_json() for name, report in self.reports.items()}
        return {"advisories": found} if found else {}

    def show(self, output: Output) -> None:
        """Print what counts, and how much was set aside."""
        if not self.reports:
            return
        rows = [
            (item.severity.label, str(item.status), item.id, f"{name}: {item.seen}")
            for name, report in self.reports.items()
            for item in report.counting
        ]
        output.say()
        if rows:
            output.table(("SEVERITY", "STATUS", "ADVISORY", "WHAT"), rows)
        aside = sum(len(report.suppressed) for report in self.reports.values())
        output.say(f"{len(rows)} advisories count, {aside} were set aside.")


def feed_options(function: F) -> F:
    """Add --feed and --vex-author; `take_feed_options` takes them out again."""
    function = click.option(
        "--vex-author", "vex_authors", multiple=True, help="Whose VEX counts; may be repeated."
    )(function)
    return click.option(
        "--feed",
        type=click.Path(path_type=Path, exists=True),
        help="Compare with advisories too: a snapshot, feed, folder or archive; taken as it is.",
    )(function)


def take_feed_options(options: dict[str, Any]) -> tuple[Path | None, tuple[str, ...]]:
    """Return what `feed_options` added, and leave the other options."""
    return options.pop("feed"), options.pop("vex_authors")


def compare(scanned: Iterable[Scanned], path: Path | None, authors: Sequence[str]) -> Compared:
    """Compare scans with a feed; raises InvalidInput if there is nothing to compare with."""
    if path is None:
        return Compared()
    from kgate_scanner.advisories.inventory import take_inventory
    from kgate_scanner.advisories.matching import match

    feed = _read(path)
    if not feed.advisories:
        raise InvalidInput(
            f"{path}: there are no advisories in it", hint="OSV, CSAF 2.0 and kgate's own are read"
        )
    return Compared(
        {
            item.name: match(feed, take_inventory(item.report), item.report.subject, authors)
            for item in scanned
        }
    )


def _read(path: Path) -> Feed:
    from kgate_scanner.advisories.collecting import collect
    from kgate_scanner.advisories.snapshot import SCHEMA, Means, Snapshot, Source

    # Canonical JSON: of the fields of a snapshot, its schema is the first.
    start = f'{{"schema":"{SCHEMA}"'.encode()
    if path.is_file():
        with path.open("rb") as stream:
            is_snapshot = stream.read(len(start)) == start
        if is_snapshot:
            return Snapshot.parse(path.read_bytes()).feed()
    texts = tuple((name, data.decode()) for name, data in collect(path).documents)
    unknown = datetime.fromtimestamp(0, UTC)  # nobody vouches for its date here
    return Snapshot((Source("feed", Means.ACCEPTED, "", 0, unknown, texts),)).feed()
