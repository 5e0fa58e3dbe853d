"""`evaluate`: one variant's evidence and a policy in, a decision out.

A pure function: no network, no files, no clock. No evidence, no rule or no answer means deny: an
empty policy denies with that as its reason, and a rule that fails denies with its error as what
was seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kgate_core.evidence import Decision, Outcome, RuleResult
from kgate_policy.baseline import RULES
from kgate_policy.rules import Level

if TYPE_CHECKING:
    from datetime import datetime

    from kgate_core.evidence import Evidence
    from kgate_policy.policy import Policy
    from kgate_policy.rules import Rule


def evaluate(evidence: Evidence, policy: Policy, *, now: datetime) -> Decision:
    """Decide about one variant; results stand in the order of the built-in register."""
    results = [
        _ask(rule, evidence, policy, level)
        for rule in RULES.values()
        if (level := policy.rules.get(rule.id, Level.OFF)) is not Level.OFF
    ]
    if not results:
        results.append(
            RuleResult(
                "policy-not-empty",
                Outcome.DENY,
                f"the policy {policy.name} asks no rule",
                "Extend a built-in profile: an empty policy allows nothing.",
            )
        )
    return Decision(policy.name, policy.digest, tuple(results), now)


def _ask(rule: Rule, evidence: Evidence, policy: Policy, level: Level) -> RuleResult:
    try:
        answer = rule.check(evidence, policy.parameters)
    except Exception as exc:  # noqa: BLE001  # whatever a rule trips over, the answer is no
        # Not softened by `warn`: a rule that could not look has not seen anything fine either.
        seen = f"the rule failed: {type(exc).__name__}: {exc}"
        return RuleResult(rule.id, Outcome.DENY, seen, rule.fix)
    outcome = answer.outcome
    if outcome is Outcome.DENY and level is Level.WARN:
        outcome = Outcome.WARN
    return RuleResult(rule.id, outcome, answer.seen, "" if outcome is Outcome.PASS else rule.fix)
