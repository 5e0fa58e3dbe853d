"""`evaluate`: one variant's evidence and a policy in, a decision out.

A pure function: no network, no files, no clock. No evidence, no rule or no answer means deny: an
empty policy denies with that as its reason, and a rule that fails denies with its error as what
was seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from kgate_core.evidence import Decision, Outcome, RuleResult
from kgate_policy.baseline import RULES
from kgate_policy.exceptions import apply_exceptions
from kgate_policy.facts.collect import kernel_facts
from kgate_policy.rules import FAILED, Level

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from kgate_core.evidence import Evidence, Facts
    from kgate_policy.exceptions import KernelException
    from kgate_policy.expressions.model import ExpressionPolicy
    from kgate_policy.policy import Policy
    from kgate_policy.rules import Rule


EMPTY: Final = "policy-not-empty"
"""The rule that denies where a policy asks nothing."""


class TenantJudge(Protocol):
    """Asks policies of people who are not trusted with this process."""

    def judge(
        self,
        policies: Sequence[ExpressionPolicy],
        kernels: Sequence[Facts],
        *,
        now: datetime,
        surroundings: Mapping[str, Any] | None = None,
    ) -> tuple[RuleResult, ...]:
        """Return their results; never raises for what a policy does."""
        ...


def evaluate(
    evidence: Evidence,
    policy: Policy,
    *,
    now: datetime,
    surroundings: Mapping[str, Any] | None = None,
    tenants: TenantJudge | None = None,
    exceptions: Sequence[KernelException] = (),
) -> Decision:
    """Decide about one variant.

    Results stand in the order of the built-in register, then of the policy's expressions.
    `surroundings` are further facts, such as `mirror` or `request`; see docs/facts.md.
    """
    results = [
        _ask(rule, evidence, policy, level, now)
        for rule in RULES.values()
        if (level := policy.rules.get(rule.id, Level.OFF)) is not Level.OFF
    ]
    if policy.expressions:
        kernel = kernel_facts(evidence, results)
        results += judge_all(
            policy.expressions, [kernel], now=now, surroundings=surroundings, tenants=tenants
        )
    if not results:
        results.append(
            RuleResult(
                EMPTY,
                Outcome.DENY,
                f"the policy {policy.name} asks no rule",
                "Extend a built-in profile: an empty policy allows nothing.",
            )
        )
    results = apply_exceptions(results, exceptions, evidence, now)
    return Decision(policy.name, policy.digest, tuple(results), now)


def judge_all(
    policies: Sequence[ExpressionPolicy],
    kernels: Sequence[Facts],
    *,
    now: datetime,
    surroundings: Mapping[str, Any] | None = None,
    tenants: TenantJudge | None = None,
) -> list[RuleResult]:
    """Ask the site's own expressions here and the tenants' through their judge."""
    # The engine costs more to import than all the rest: only policies with expressions pay.
    from kgate_policy.expressions.running import judge  # noqa: PLC0415

    results: list[RuleResult] = []
    foreign = [item for item in policies if item.tenant]
    for item in policies:
        if not item.tenant:
            results += judge(item, kernels, now=now, surroundings=surroundings)
    if foreign and tenants is None:
        seen = f"no worker is there to ask the policies of {foreign[0].tenant}"
        hint = "Start a worker for tenants' policies."
        results += [RuleResult(item.name, Outcome.DENY, seen, hint) for item in foreign]
    elif foreign and tenants is not None:
        results += tenants.judge(foreign, kernels, now=now, surroundings=surroundings)
    return results


def _ask(rule: Rule, evidence: Evidence, policy: Policy, level: Level, now: datetime) -> RuleResult:
    try:
        answer = rule.answer(evidence, policy.parameters, now)
    except Exception as exc:  # noqa: BLE001  # whatever a rule trips over, the answer is no
        # Not softened by `warn`: a rule that could not look has not seen anything fine either.
        seen = f"{FAILED}{type(exc).__name__}: {exc}"
        return RuleResult(rule.id, Outcome.DENY, seen, rule.fix)
    outcome = answer.outcome
    if outcome is Outcome.DENY and level is Level.WARN:
        outcome = Outcome.WARN
    return RuleResult(rule.id, outcome, answer.seen, "" if outcome is Outcome.PASS else rule.fix)
