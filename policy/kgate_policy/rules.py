"""The shape of a built-in rule: documentation with an id, and one small function.

A rule looks at one variant's evidence and the policy's parameters and answers with a value. How
much its answer counts (deny, warn, off) is the policy's business, not the rule's. Nothing here
reads files or clocks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from kgate_core.errors import InvalidInput
from kgate_core.evidence import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime

    from kgate_core.evidence import Evidence
    from kgate_policy.parameters import Parameters

MAX_SHOWN: Final = 3  # offending values named in one sentence; the rest are counted

FAILED: Final = "the rule failed: "
"""How the answer of a rule begins that raised an error."""
NO_ANSWER: Final = "no answer: "
"""How the answer of an expression begins that came to no value."""

_ID: Final = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")


class Level(StrEnum):
    """How much a rule's answer counts in a policy."""

    DENY = "deny"
    WARN = "warn"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a rule says: the outcome, and the value that decided in a sentence."""

    outcome: Outcome
    seen: str


def passed(seen: str) -> Answer:
    """Return a yes, with what was looked at."""
    return Answer(Outcome.PASS, seen)


def warned(seen: str) -> Answer:
    """Return a yes that wants to be heard."""
    return Answer(Outcome.WARN, seen)


def denied(seen: str) -> Answer:
    """Return a no."""
    return Answer(Outcome.DENY, seen)


@dataclass(frozen=True, slots=True)
class Rule:
    """One built-in rule; each has a section in docs/policy-rules.md."""

    id: str
    """Stable slug such as `no-bytecode`; never reused for another meaning."""
    title: str
    """Half a line for a list."""
    why: str
    """Why it matters, for somebody who has not met it before."""
    fix: str
    """What a person can do next when the rule says no."""
    checklist: str
    """The line of an operator's checklist that this rule ticks off."""
    check: Callable[[Evidence, Parameters], Answer]
    asks: tuple[str, ...]
    """Paths of the facts that it looks at, as docs/facts.md names them."""
    dated: Callable[[Evidence, Parameters, datetime], Answer] | None = None
    """Asked instead of `check` by a rule whose answer depends on when it is asked."""

    def __post_init__(self) -> None:
        if _ID.fullmatch(self.id) is None:
            raise InvalidInput(f"not a rule id of the form no-bytecode: {self.id!r}")

    def answer(self, evidence: Evidence, parameters: Parameters, now: datetime) -> Answer:
        """Return what the rule says at a moment."""
        if self.dated is not None:
            return self.dated(evidence, parameters, now)
        return self.check(evidence, parameters)


def merge(tables: Iterable[Iterable[Rule]]) -> Mapping[str, Rule]:
    """Return all rules by id, in the order of the tables; raises InvalidInput for a double id."""
    merged: dict[str, Rule] = {}
    for rule in (rule for table in tables for rule in table):
        if merged.setdefault(rule.id, rule) is not rule:
            raise InvalidInput(f"rule id {rule.id} is used twice")
    return merged


def listed(values: Iterable[str]) -> str:
    """Return the first few values in a sentence and count the rest."""
    items = list(values)
    more = len(items) - MAX_SHOWN
    text = ", ".join(items[:MAX_SHOWN])
    return f"{text} and {more} more" if more > 0 else text
