"""Exceptions: one rule, one kernel's bytes, one reason, one end.

An exception names the manifest digest, so it covers nothing but the bytes that somebody looked
at. It turns a denial into a warning that says so, while it lasts; one that has ended, or that is
for other bytes, changes nothing and is reported. Who may sign it is not decided here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING, Final

import yaml

from kgate_core.clock import read_time, write_time
from kgate_core.digest import Digest
from kgate_core.errors import InvalidInput
from kgate_core.evidence import Outcome, RuleResult
from kgate_core.kernel import KernelRef
from kgate_policy.document import API_VERSION, check_header, read_all
from kgate_policy.rules import FAILED, NO_ANSWER

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from kgate_core.evidence import Evidence, Facts
    from kgate_policy.located import Located

KIND: Final = "KernelException"
MAX_DAYS: Final = 366  # days that an exception may last from when it was granted
MIN_REASON: Final = 12  # characters; "ok" is not a reason

NEVER: Final = frozenset(
    {"asked-for", "bytes-verified", "metadata-id-safe", "not-denied", "pinned-commit"}
    | {"policy-not-empty", "scan-complete", "upstream-signature-valid"}
)
"""Rules that no exception covers: without them nobody knows which bytes were excepted."""

_DAY: Final = timedelta(days=1)
_FIELDS: Final = {"apiVersion", "kind", "name", "kernel", "digest", "rules", "reason"} | {
    "granted",
    "until",
    "requestedBy",
    "approvedBy",
}


@dataclass(frozen=True, slots=True)
class KernelException:
    """Permission to use certain bytes although certain rules deny, until a certain moment."""

    name: str
    kernel: KernelRef
    digest: Digest
    """Digest of the variant's manifest."""
    rules: tuple[str, ...]
    reason: str
    granted: datetime
    until: datetime
    requested_by: str
    approved_by: str

    def __post_init__(self) -> None:
        if not self.rules:
            raise InvalidInput("rules: an exception names the rules that it is from")
        never = sorted(NEVER & set(self.rules))
        if never:
            raise InvalidInput(f"rules: {never[0]} cannot be excepted")
        if len(self.reason.strip()) < MIN_REASON:
            raise InvalidInput(f"reason: write at least {MIN_REASON} characters")
        if not self.granted < self.until <= self.granted + MAX_DAYS * _DAY:
            raise InvalidInput(f"until: an exception ends within {MAX_DAYS} days after granted")
        if self.requested_by.strip().casefold() == self.approved_by.strip().casefold():
            raise InvalidInput("approvedBy: nobody approves what they asked for themselves")

    def covers(self, rule: str) -> bool:
        """Return whether the exception is from a rule, or from all of an expression policy."""
        return rule in self.rules or rule.partition("/")[0] in self.rules

    def active(self, now: datetime) -> bool:
        """Return whether it has begun and has not ended."""
        return self.granted <= now < self.until

    def days_left(self, now: datetime) -> int:
        """Return whole days until it ends, 0 on the last day and afterwards."""
        return max(0, (self.until - now) // _DAY)

    def to_json(self) -> Facts:
        """Return the exception as a JSON object, for reports and attestations."""
        return {
            "name": self.name,
            "kernel": str(self.kernel),
            "digest": str(self.digest),
            "rules": list(self.rules),
            "reason": self.reason,
            "granted": write_time(self.granted),
            "until": write_time(self.until),
            "requestedBy": self.requested_by,
            "approvedBy": self.approved_by,
        }


def load_exceptions(source: Path | str | bytes) -> tuple[KernelException, ...]:
    """Read every document of kind KernelException; raises InvalidInput and NotFound."""
    return tuple(
        read_exception(document)
        for document in read_all(source)
        if document.required("kind").value == KIND
    )


def read_exception(document: Located) -> KernelException:
    """Read one document; raises InvalidInput naming line and field."""
    document.mapping(_FIELDS)
    check_header(document, KIND)
    try:
        return KernelException(
            name=document.required("name").text(),
            kernel=KernelRef.parse(document.required("kernel").text()),
            digest=Digest.parse(document.required("digest").text()),
            rules=document.required("rules").texts(),
            reason=document.required("reason").text(),
            granted=_moment(document.required("granted")),
            until=_moment(document.required("until")),
            requested_by=document.required("requestedBy").text(),
            approved_by=document.required("approvedBy").text(),
        )
    except InvalidInput as exc:
        if exc.message.startswith(document.source):
            raise
        return document.fail(exc.message, hint=exc.hint)


def exception_text(exception: KernelException) -> str:
    """Return the YAML document of an exception, as `load_exceptions` reads it."""
    document = {"apiVersion": API_VERSION, "kind": KIND, **exception.to_json()}
    text: str = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100)
    return text


def _moment(item: Located) -> datetime:
    """Read `2026-12-31` (the start of that day, UTC) or `2026-12-31T12:00:00Z`."""
    text = item.text()
    try:
        if "T" in text:
            return read_time(text, what=item.field)
        return datetime.combine(datetime.fromisoformat(text).date(), time(), UTC)
    except (ValueError, InvalidInput):
        return item.fail(f"expected a date like 2026-12-31, found {text!r}")


def apply_exceptions(
    results: Sequence[RuleResult],
    exceptions: Iterable[KernelException],
    evidence: Evidence,
    now: datetime,
) -> list[RuleResult]:
    """Return the results with denials that are excepted turned into warnings.

    Exceptions about this repository that have no effect add a warning of their own.
    """
    changed = list(results)
    for exception in exceptions:
        if exception.kernel != evidence.kernel.repo:
            continue
        why_not = _without_effect(exception, evidence, now)
        used = False
        for index, result in enumerate(changed):
            if not why_not and _excepted(result, exception):
                used = True
                changed[index] = _softened(result, exception, now)
        if not why_not and not used:
            why_not = "is not needed: no rule that it names denies"
        if why_not:
            changed.append(
                RuleResult(
                    f"exception/{exception.name}",
                    Outcome.WARN,
                    f"the exception {exception.name} {why_not}",
                    "Remove it, or ask for a new one if the kernel is still wanted.",
                )
            )
    return changed


def _excepted(result: RuleResult, exception: KernelException) -> bool:
    # A rule that failed gave no answer that anybody could have accepted.
    return (
        result.outcome is Outcome.DENY
        and exception.covers(result.rule)
        and not result.seen.startswith((FAILED, NO_ANSWER))
    )


def _softened(result: RuleResult, exception: KernelException, now: datetime) -> RuleResult:
    note = (
        f"excepted until {write_time(exception.until)} by {exception.approved_by} "
        f"({exception.name}): {exception.reason}"
    )
    left = exception.days_left(now)
    return replace(
        result,
        outcome=Outcome.WARN,
        seen=f"{result.seen} — {note}",
        hint=f"{left} days are left. {result.hint}".strip(),
    )


def _without_effect(exception: KernelException, evidence: Evidence, now: datetime) -> str:
    if exception.digest != evidence.manifest.digest:
        return (
            f"is for other bytes ({exception.digest.short}, not {evidence.manifest.digest.short})"
        )
    if now >= exception.until:
        return f"ended {write_time(exception.until)}"
    if now < exception.granted:
        return f"begins {write_time(exception.granted)}"
    return ""


def ending_soon(
    exceptions: Iterable[KernelException], now: datetime, *, days: int = 14
) -> tuple[KernelException, ...]:
    """Return active exceptions that end within so many days, the next first."""
    soon = [e for e in exceptions if e.active(now) and e.until - now <= days * _DAY]
    return tuple(sorted(soon, key=lambda exception: (exception.until, exception.name)))
