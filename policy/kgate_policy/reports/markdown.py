"""The Markdown summary that a merge request shows.

Hostile text (file names, messages) is escaped: it can neither form links nor break a table.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Final

from kgate_core.evidence import Outcome, Severity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kgate_core.evidence import RuleResult
    from kgate_policy.reports.entries import Entry

MAX_ROWS: Final = 200  # variants in the table; a comment has room for about 65,000 characters
_MAX_TEXT: Final = 300  # characters of one message
_SPECIAL: Final = re.compile(r"([\\`*_{}\[\]<>#|~!&@])")


def markdown(entries: Sequence[Entry], *, title: str = "Kernels") -> str:
    """Return the summary: counts, one row for each variant, then what is denied and warned of."""
    allowed = sum(entry.allowed for entry in entries)
    lines = [
        f"## {escape(title)}",
        "",
        f"{allowed} of {len(entries)} variants are allowed, {len(entries) - allowed} are denied.",
    ]
    if entries:
        lines += ["", "| kernel | variant | lane | findings | decision |", "|---|---|---|---|---|"]
        lines += [_row(entry) for entry in entries[:MAX_ROWS]]
        if len(entries) > MAX_ROWS:
            lines += ["", f"{len(entries) - MAX_ROWS} more variants are not listed here."]
    lines += _section("Denied", entries, Outcome.DENY)
    lines += _section("Warnings", entries, Outcome.WARN)
    return "\n".join(lines) + "\n"


def _row(entry: Entry) -> str:
    counts = Counter(finding.severity for finding in entry.findings)
    found = ", ".join(
        f"{counts[level]} {level.label}"
        for level in sorted(Severity, reverse=True)
        if counts[level]
    )
    cells = (
        f"{escape(str(entry.kernel.repo))} `{entry.kernel.revision.short}`",
        f"`{entry.kernel.variant}`",
        escape(entry.lane),
        found or "none",
        "allowed" if entry.allowed else "**denied**",
    )
    return f"| {' | '.join(cells)} |"


def _section(title: str, entries: Sequence[Entry], outcome: Outcome) -> list[str]:
    # One line for each rule and answer: ten variants of a kernel mostly say the same.
    grouped: dict[RuleResult, list[Entry]] = {}
    for entry in entries:
        for result in entry.of_outcome(outcome):
            grouped.setdefault(result, []).append(entry)
    if not grouped:
        return []
    lines = ["", f"### {title}", ""]
    for result, where in list(grouped.items())[:MAX_ROWS]:
        repos = ", ".join(sorted({escape(str(entry.kernel.repo)) for entry in where}))
        lines.append(f"* **{escape(result.rule)}** ({repos}, {_variants(where)}): ")
        lines[-1] += escape(result.seen)
        if result.hint:
            lines.append(f"  → {escape(result.hint)}")
    return lines


def _variants(where: Sequence[Entry]) -> str:
    return f"`{where[0].kernel.variant}`" if len(where) == 1 else f"{len(where)} variants"


def escape(text: str) -> str:
    """Return text that Markdown shows as it stands, on one line."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    line = line if len(line) <= _MAX_TEXT else f"{line[:_MAX_TEXT]}…"
    return _SPECIAL.sub(r"\\\1", line)
