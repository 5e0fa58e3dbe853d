"""Tenants: teams whose policies are asked beside the site's, about the kernels that are theirs.

They may tighten and never loosen: what they answer is added to the site's decision, whose own
answers stay as they are, so the most severe wins and both are shown. A tenant's answer stands
under `tenant/NAME/RULE`. The site's exceptions do not cover a tenant's denial.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final

from kgate_core.errors import InvalidInput
from kgate_core.evidence import Outcome, RuleResult
from kgate_policy.document import load_expressions, load_policies
from kgate_policy.evaluation import EMPTY, evaluate
from kgate_policy.expressions.tenants import TenantWorker
from kgate_policy.joining import loosened
from kgate_policy.policy import Policy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from kgate_core.evidence import Decision, Evidence
    from kgate_policy.evaluation import TenantJudge

PREFIX: Final = "tenant/"
_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,62}")


@dataclass(frozen=True, slots=True)
class Tenant:
    """One team: its policy, and the repositories that are its own."""

    name: str
    repos: tuple[str, ...]
    """Shell patterns of `org/name`."""
    policy: Policy

    def __post_init__(self) -> None:
        if _NAME.fullmatch(self.name) is None:
            raise InvalidInput(
                f"not a tenant's name: {self.name!r}", hint="use lower-case letters, digits and '-'"
            )
        if not self.policy.expressions and not self.policy.rules:
            raise InvalidInput(f"tenant {self.name}: its policy asks nothing")

    def about(self, repo: str) -> bool:
        """Return whether a repository is the tenant's."""
        return any(fnmatchcase(repo, pattern) for pattern in self.repos)


def load_tenant(name: str, repos: Sequence[str], source: Path | str | bytes) -> Tenant:
    """Read a tenant's file or folder: expressions, and at most one Policy; raises InvalidInput."""
    documents, policies = load_policies(source)
    if len(policies) > 1:
        raise InvalidInput(f"tenant {name}: expected one document of kind Policy at most")
    base = policies[0] if policies else Policy(name, {})
    expressions = load_expressions(documents, tenant=name)
    return Tenant(name, tuple(repos), replace(base, expressions=expressions))


def tighten(
    decision: Decision,
    evidence: Evidence,
    tenants: Sequence[Tenant],
    *,
    site: Policy,
    now: datetime,
    surroundings: Mapping[str, Any] | None = None,
    judge: TenantJudge | None = None,
) -> Decision:
    """Return the site's decision with the answers of the tenants whose kernel it is.

    Without a `judge` a worker is started for them, and ended.
    """
    asked = [tenant for tenant in tenants if tenant.about(str(evidence.kernel.repo))]
    if not asked:
        return decision
    if judge is None:
        with TenantWorker() as worker:
            return tighten(
                decision,
                evidence,
                asked,
                site=site,
                now=now,
                surroundings=surroundings,
                judge=worker,
            )
    results = list(decision.results)
    for tenant in asked:
        theirs = evaluate(
            evidence, tenant.policy, now=now, surroundings=surroundings, tenants=judge
        )
        # A policy that is about other kernels than this one has nothing to add.
        answers = [item for item in theirs.results if item.rule != EMPTY]
        results.append(_summary(tenant, site, len(answers)))
        results += [replace(item, rule=f"{PREFIX}{tenant.name}/{item.rule}") for item in answers]
    return replace(decision, results=tuple(results))


def _summary(tenant: Tenant, site: Policy, answers: int) -> RuleResult:
    """Say which policy was asked, and where it believes to loosen."""
    seen = f"{answers} answers of the policy {tenant.policy.name} ({tenant.policy.digest})"
    without_effect = loosened(site, tenant.policy) if tenant.policy.rules else ()
    if not without_effect:
        return RuleResult(PREFIX + tenant.name, Outcome.PASS, seen)
    return RuleResult(
        PREFIX + tenant.name,
        Outcome.WARN,
        f"{seen}; without effect: {'; '.join(without_effect[:3])}",
        "A tenant may only tighten: take out of its policy what asks for less than the site's.",
    )
