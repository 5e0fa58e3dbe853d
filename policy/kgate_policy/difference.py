"""What two policies decide differently over a real inventory, before the second one is in force.

Both are asked about the same evidence at the same moment. Returns values; nothing is rendered,
fetched or changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kgate_core.evidence import Outcome
from kgate_policy.evaluation import evaluate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import datetime

    from kgate_core.evidence import Decision, Evidence, Facts, RuleResult
    from kgate_core.kernel import KernelId
    from kgate_policy.exceptions import KernelException
    from kgate_policy.policy import Policy


@dataclass(frozen=True, slots=True)
class RuleChange:
    """One rule that answers differently; None where a policy does not ask it."""

    rule: str
    before: RuleResult | None
    after: RuleResult | None


@dataclass(frozen=True, slots=True)
class Change:
    """One variant that two policies see differently."""

    kernel: KernelId
    lane: str
    before: Decision
    after: Decision
    rules: tuple[RuleChange, ...]

    @property
    def newly_denied(self) -> bool:
        """True if it was allowed and would not be."""
        return self.before.allowed and not self.after.allowed

    @property
    def newly_allowed(self) -> bool:
        """True if it was denied and would be allowed."""
        return self.after.allowed and not self.before.allowed

    def to_json(self) -> Facts:
        """Return the change as a JSON object."""
        return {
            "kernel": self.kernel.purl,
            "lane": self.lane,
            "before": self.before.allowed,
            "after": self.after.allowed,
            "rules": [
                {
                    "rule": item.rule,
                    "before": None if item.before is None else item.before.to_json(),
                    "after": None if item.after is None else item.after.to_json(),
                }
                for item in self.rules
            ],
        }


@dataclass(frozen=True, slots=True)
class Difference:
    """Everything that two policies see differently, and how much was looked at."""

    asked: int
    """Variants that both policies were asked about."""
    changes: tuple[Change, ...]

    @property
    def newly_denied(self) -> tuple[Change, ...]:
        """The variants that would be lost."""
        return tuple(change for change in self.changes if change.newly_denied)

    @property
    def newly_allowed(self) -> tuple[Change, ...]:
        """The variants that would be let in."""
        return tuple(change for change in self.changes if change.newly_allowed)

    def to_json(self) -> Facts:
        """Return the difference as a JSON object."""
        return {
            "asked": self.asked,
            "newlyDenied": len(self.newly_denied),
            "newlyAllowed": len(self.newly_allowed),
            "changes": [change.to_json() for change in self.changes],
        }


def difference(
    before: Policy | Callable[[str], Policy],
    after: Policy,
    inventory: Iterable[Evidence],
    *,
    now: datetime,
    exceptions: Sequence[KernelException] = (),
    surroundings: Callable[[str], Facts] = lambda _lane: {},
) -> Difference:
    """Ask two policies about every variant; changes come newly denied first, then by name.

    `before` may be a function that returns the policy of a lane.
    """
    asked = 0
    changes = []
    for evidence in inventory:
        asked += 1
        former = before(evidence.lane) if callable(before) else before
        around = surroundings(evidence.lane)
        old, new = (
            evaluate(evidence, policy, now=now, surroundings=around, exceptions=exceptions)
            for policy in (former, after)
        )
        rules = _changed(old, new)
        if rules:
            changes.append(Change(evidence.kernel, evidence.lane, old, new, rules))
    changes.sort(key=lambda change: (not change.newly_denied, change.kernel.purl, change.lane))
    return Difference(asked, tuple(changes))


def _changed(before: Decision, after: Decision) -> tuple[RuleChange, ...]:
    old = {result.rule: result for result in before.results}
    new = {result.rule: result for result in after.results}
    return tuple(
        RuleChange(rule, old.get(rule), new.get(rule))
        for rule in dict.fromkeys([*old, *new])
        if _outcome(old.get(rule)) is not _outcome(new.get(rule))
    )


def _outcome(result: RuleResult | None) -> Outcome:
    # A rule that is not asked and a rule that passes both stop nothing.
    return Outcome.PASS if result is None else result.outcome
