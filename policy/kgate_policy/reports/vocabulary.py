"""The words of every report: how a result is called and how bad it is, in each format.

Ours are those of OpenReports (`pass`, `warn`, `fail`, `error`, `skip`) and of CVSS-like severity
(`info` to `critical`). The other formats get theirs from these tables only.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final

from kgate_core.evidence import Outcome, Severity
from kgate_policy.rules import FAILED, NO_ANSWER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kgate_core.evidence import RuleResult


class Word(StrEnum):
    """What a result is called."""

    PASS = "pass"  # noqa: S105  # not a password
    WARN = "warn"
    FAIL = "fail"
    ERROR = "error"
    SKIP = "skip"


SEVERITY: Final[Mapping[Word, Severity]] = {
    Word.PASS: Severity.INFO,
    Word.SKIP: Severity.INFO,
    Word.WARN: Severity.MEDIUM,
    Word.FAIL: Severity.HIGH,
    Word.ERROR: Severity.HIGH,
}
"""How bad a result is where the rule itself has no severity."""

SARIF_LEVEL: Final[Mapping[Severity, str]] = {
    Severity.INFO: "note",
    Severity.LOW: "note",
    Severity.MEDIUM: "warning",
    Severity.HIGH: "error",
    Severity.CRITICAL: "error",
}
SARIF_SCORE: Final[Mapping[Severity, str]] = {
    Severity.INFO: "0.0",
    Severity.LOW: "3.0",
    Severity.MEDIUM: "5.0",
    Severity.HIGH: "8.0",
    Severity.CRITICAL: "9.5",
}
"""The `security-severity` that code scanning sorts by."""

GITLAB_SEVERITY: Final[Mapping[Severity, str]] = {
    Severity.INFO: "info",
    Severity.LOW: "minor",
    Severity.MEDIUM: "major",
    Severity.HIGH: "critical",
    Severity.CRITICAL: "blocker",
}
GITHUB_COMMAND: Final[Mapping[Severity, str]] = {
    Severity.INFO: "notice",
    Severity.LOW: "notice",
    Severity.MEDIUM: "warning",
    Severity.HIGH: "error",
    Severity.CRITICAL: "error",
}


def word(result: RuleResult) -> Word:
    """Return what a rule's result is called; a rule that gave no answer is an error."""
    match result.outcome:
        case Outcome.PASS:
            return Word.PASS
        case Outcome.WARN:
            return Word.WARN
        case Outcome.DENY:
            return Word.ERROR if result.seen.startswith((FAILED, NO_ANSWER)) else Word.FAIL
