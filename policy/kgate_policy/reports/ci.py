"""Short notes for CI: GitHub workflow commands and the GitLab Code Quality report.

Both are lists of places with a message. Text from outside is escaped, so that a file name cannot
start a workflow command of its own.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kgate_core.digest import Digest
from kgate_core.evidence import Outcome, Severity
from kgate_policy.reports.vocabulary import GITHUB_COMMAND, GITLAB_SEVERITY, SEVERITY, word

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kgate_policy.reports.entries import Entry

MAX_ANNOTATIONS: Final = 50  # GitHub shows ten of each kind for a step and fifty for a run
_MAX_TEXT: Final = 1_000  # characters of one message


@dataclass(frozen=True, slots=True)
class Note:
    """One thing to tell, at a place in the repository."""

    rule: str
    severity: Severity
    text: str
    path: str
    line: int
    identity: str
    """What makes it the same note in the next run."""


def notes(entries: Sequence[Entry], *, anchor: str = "kgate.lock") -> Iterator[Note]:
    """Yield every result that did not pass, then every finding from medium on."""
    for entry in entries:
        for result in entry.results:
            if result.outcome is not Outcome.PASS:
                text = f"{entry.name}: {result.seen}"
                text += f" → {result.hint}" if result.hint else ""
                identity = f"{result.rule}\n{entry.kernel.purl}\n{entry.lane}"
                yield Note(result.rule, SEVERITY[word(result)], text, anchor, 1, identity)
    for entry in entries:
        for finding in entry.findings:
            if finding.severity >= Severity.MEDIUM:
                text = f"{entry.name}: {finding.path}: {finding.seen}"
                identity = f"{finding.rule}\n{entry.kernel.purl}\n{finding.path}\n{finding.seen}"
                yield Note(finding.rule, finding.severity, text, anchor, 1, identity)


def github_annotations(found: Sequence[Note]) -> str:
    """Return GitHub workflow commands, the most severe first."""
    ordered = sorted(found, key=lambda note: -note.severity)
    lines = [
        f"::{GITHUB_COMMAND[note.severity]} file={_property(note.path)},line={note.line},"
        f"title={_property(note.rule)}::{_data(note.text[:_MAX_TEXT])}"
        for note in ordered[:MAX_ANNOTATIONS]
    ]
    if len(ordered) > MAX_ANNOTATIONS:
        lines.append(f"::notice::{len(ordered) - MAX_ANNOTATIONS} more are in the report")
    return "".join(f"{line}\n" for line in lines)


def gitlab_quality(found: Sequence[Note]) -> str:
    """Return the JSON that GitLab reads as a Code Quality artifact."""
    seen: set[str] = set()
    issues = []
    for note in found:
        fingerprint = Digest.of(note.identity.encode()).hex
        if fingerprint not in seen:
            seen.add(fingerprint)
            issues.append(
                {
                    "description": note.text[:_MAX_TEXT],
                    "check_name": note.rule,
                    "fingerprint": fingerprint,
                    "severity": GITLAB_SEVERITY[note.severity],
                    "location": {"path": note.path, "lines": {"begin": note.line}},
                }
            )
    return json.dumps(issues, indent=1, ensure_ascii=False) + "\n"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
