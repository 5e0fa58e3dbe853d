"""Two policies about one kernel: the most severe answer wins, and both are shown.

This is how tenants may tighten and never loosen: the site's decision is always part of the
joined one, so nothing that a tenant writes can take a denial away. `loosened` says where a
tenant's policy asks for less than the site's, so that nobody believes it had an effect.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from kgate_core import strictjson
from kgate_core.digest import Digest
from kgate_core.errors import InvalidInput
from kgate_core.evidence import Decision, Outcome
from kgate_policy.rules import Level

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kgate_core.evidence import RuleResult
    from kgate_policy.policy import Policy

_WEIGHT = {Outcome.PASS: 0, Outcome.WARN: 1, Outcome.DENY: 2}
_LEVEL = {Level.OFF: 0, Level.WARN: 1, Level.DENY: 2}


def join(decisions: Sequence[Decision]) -> Decision:
    """Return one decision out of several about the same kernel; raises InvalidInput for none.

    A decision without results joins as what it is, a denial: the joined results then keep a
    denial of their own. Where policies disagree, each answer names its policy.
    """
    if not decisions:
        raise InvalidInput("there is no decision to join: no policy was asked")
    if len(decisions) == 1:
        return decisions[0]
    if any(not decision.results for decision in decisions):
        raise InvalidInput("a decision without results cannot be joined")
    by_rule: dict[str, list[tuple[str, RuleResult]]] = {}
    for decision in decisions:
        for result in decision.results:
            by_rule.setdefault(result.rule, []).append((decision.policy, result))
    results = [result for answers in by_rule.values() for result in _shown(answers)]
    digests = [str(decision.policy_digest) for decision in decisions]
    return Decision(
        " + ".join(decision.policy for decision in decisions),
        Digest.of(strictjson.dumps(digests)),
        tuple(results),
        max(decision.decided_at for decision in decisions),
    )


def _shown(answers: list[tuple[str, RuleResult]]) -> list[RuleResult]:
    first = answers[0][1]
    if all(result == first for _, result in answers):
        return [first]
    ordered = sorted(answers, key=lambda answer: -_WEIGHT[answer[1].outcome])
    return [replace(result, seen=f"{policy}: {result.seen}") for policy, result in ordered]


def loosened(site: Policy, tenant: Policy) -> tuple[str, ...]:
    """Say in sentences where a tenant's policy asks for less than the site's."""
    said = [
        f"{rule} is {tenant.rules.get(rule, Level.OFF)} here, but {level} at the site"
        for rule, level in site.rules.items()
        if _LEVEL[tenant.rules.get(rule, Level.OFF)] < _LEVEL[level]
    ]
    ours, theirs = site.parameters, tenant.parameters
    said += [
        f"{name.replace('_', '.')} is {getattr(theirs, name).label} here, "
        f"but {getattr(ours, name).label} at the site"
        for name in ("severity_deny", "severity_warn")
        if getattr(theirs, name) > getattr(ours, name)
    ]
    return tuple(said)
