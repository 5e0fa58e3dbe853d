"""Why a decision came out as it did: for every rule the facts it looked at, what it saw, the fix.

Returns values; a command line or a page renders them. Nothing is decided here: the decision is
given, and the facts are collected from the same evidence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from kgate_core.evidence import Outcome
from kgate_policy.baseline import RULES
from kgate_policy.facts.collect import kernel_facts
from kgate_policy.tenancy import PREFIX

if TYPE_CHECKING:
    from kgate_core.evidence import Decision, Evidence, Facts, RuleResult
    from kgate_policy.policy import Policy

PAGE: Final = "docs/policy-rules.md"
_SHOWN: Final = 160  # characters of a value
_ORDER: Final = {Outcome.DENY: 0, Outcome.WARN: 1, Outcome.PASS: 2}


@dataclass(frozen=True, slots=True)
class FactSeen:
    """One fact that a rule looked at."""

    path: str
    value: str
    """The value in short; `absent` if there is none."""


@dataclass(frozen=True, slots=True)
class RuleExplanation:
    """One rule's part in a decision."""

    rule: str
    outcome: Outcome
    title: str
    level: str
    """deny or warn as the policy sets it; `expression` for what people wrote."""
    seen: str
    fix: str
    why: str
    checklist: str
    page: str
    facts: tuple[FactSeen, ...]

    def to_json(self) -> Facts:
        """Return the explanation as a JSON object."""
        return {
            "rule": self.rule,
            "outcome": str(self.outcome),
            "title": self.title,
            "level": self.level,
            "seen": self.seen,
            "fix": self.fix,
            "why": self.why,
            "checklist": self.checklist,
            "page": self.page,
            "facts": {fact.path: fact.value for fact in self.facts},
        }


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision with the reasons of every rule, denials first."""

    kernel: str
    variant: str
    allowed: bool
    policy: str
    policy_digest: str
    rules: tuple[RuleExplanation, ...]

    def to_json(self) -> Facts:
        """Return the explanation as a JSON object."""
        return {
            "kernel": self.kernel,
            "variant": self.variant,
            "allowed": self.allowed,
            "policy": self.policy,
            "policyDigest": self.policy_digest,
            "rules": [rule.to_json() for rule in self.rules],
        }


def explain(
    evidence: Evidence, policy: Policy, decision: Decision, *, rule: str | None = None
) -> Explanation:
    """Explain a decision; `rule` keeps one rule only, by its id or its policy's name."""
    facts = {"kernel": kernel_facts(evidence, decision.results)}
    wanted = [item for item in decision.results if rule is None or _is(item, rule)]
    rules = sorted(
        (_explain_rule(item, policy, facts) for item in wanted),
        key=lambda item: _ORDER[item.outcome],
    )
    return Explanation(
        kernel=f"{evidence.kernel.repo}@{evidence.kernel.revision}",
        variant=evidence.kernel.variant,
        allowed=decision.allowed,
        policy=decision.policy,
        policy_digest=str(decision.policy_digest),
        rules=tuple(rules),
    )


def _is(result: RuleResult, rule: str) -> bool:
    return result.rule == rule or result.rule.startswith(f"{rule}/")


def _explain_rule(result: RuleResult, policy: Policy, facts: Facts) -> RuleExplanation:
    tenant, name = _tenant_of(result.rule)
    known = RULES.get(name)
    level = f"tenant {tenant}" if tenant else "expression"
    if known is None:
        title = f"An expression of {name.partition('/')[0]}" if name else "The tenant was asked"
        return RuleExplanation(
            rule=result.rule,
            outcome=result.outcome,
            title=title,
            level=level,
            seen=result.seen,
            fix=result.hint,
            why="",
            checklist="",
            page="docs/policy.md#tenants" if tenant else "docs/policy.md",
            facts=(),
        )
    return RuleExplanation(
        rule=result.rule,
        outcome=result.outcome,
        title=known.title,
        level=level if tenant else str(policy.rules.get(result.rule, "")),
        seen=result.seen,
        fix=result.hint or known.fix,
        why=known.why,
        checklist=known.checklist,
        page=f"{PAGE}#{name}",
        facts=tuple(FactSeen(path, fact_shown(path, facts)) for path in known.asks),
    )


def _tenant_of(rule: str) -> tuple[str, str]:
    """Return a tenant's name and its rule, or nothing and the rule."""
    if not rule.startswith(PREFIX):
        return "", rule
    tenant, _, name = rule.removeprefix(PREFIX).partition("/")
    return tenant, name


def fact_shown(path: str, facts: Facts) -> str:
    """Return a fact's value in short: texts as they are, lists counted."""
    value: Any = facts
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    match value:
        case None:
            return "absent"
        case bool():
            return "true" if value else "false"
        case list() if all(isinstance(item, str) for item in value):
            text = f"{len(value)}: {', '.join(value)}" if value else "none"
        case list():
            text = f"{len(value)} items"
        case dict():
            text = f"{len(value)} fields"
        case _:
            text = str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def explain_text(explanation: Explanation, *, passed: bool = False) -> str:
    """Return an explanation as plain text; rules that passed are counted unless asked for."""
    word = "allowed" if explanation.allowed else "denied"
    lines = [
        f"{explanation.kernel} {explanation.variant}: {word} by {explanation.policy}",
        f"  policy digest {explanation.policy_digest}",
    ]
    for rule in explanation.rules:
        if rule.outcome is not Outcome.PASS or passed:
            lines += _lines(rule)
    quiet = sum(rule.outcome is Outcome.PASS for rule in explanation.rules)
    if quiet and not passed:
        lines += ["", f"{quiet} other rules pass"]
    return "\n".join(lines) + "\n"


def _lines(rule: RuleExplanation) -> list[str]:
    lines = ["", f"{rule.outcome} {rule.rule}: {rule.title}", f"  seen   {rule.seen}"]
    lines += [f"  fact   {fact.path} = {fact.value}" for fact in rule.facts]
    if rule.why:
        lines.append(f"  why    {rule.why}")
    if rule.outcome is not Outcome.PASS:
        lines.append(f"  to do  {rule.fix}")
    return [*lines, f"  page   {rule.page}"]
