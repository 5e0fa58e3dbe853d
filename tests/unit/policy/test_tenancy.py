"""Tenants' policies beside the site's: they tighten, never loosen, and cannot hang a sync."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from kgate_core.errors import InvalidInput
from kgate_core.evidence import Outcome
from kgate_policy import builtin_profile, evaluate, load_policy
from kgate_policy.exceptions import KernelException
from kgate_policy.explain import explain
from kgate_policy.question import Question
from kgate_policy.tenancy import Tenant, load_tenant, tighten
from tests.policykit import NOW, good_evidence, with_import

if TYPE_CHECKING:
    from kgate_core.evidence import Decision, Evidence

PRODUCTION = builtin_profile("production")
HEAD = "apiVersion: kgate.dev/v1\nkind: Policy\nname: theirs\nextends: "
EXPRESSION = (
    "apiVersion: kgate.dev/v1\nkind: KernelPolicy\nmetadata: {{name: own}}\n"
    'spec: {{validations: [{{expression: "{}"}}]}}\n'
)
UNSIGNED = with_import(upstreamSignature={"status": "missing"})


def tenant(text: str, *repos: str) -> Tenant:
    return load_tenant("team-a", repos or ("kernels-community/*",), text.encode())


def ask(evidence: Evidence, *tenants: Tenant, profile: str = "production") -> Decision:
    site = builtin_profile(profile)
    decision = evaluate(evidence, site, now=NOW)
    return tighten(decision, evidence, tenants, site=site, now=NOW)


def outcomes(decision: Decision) -> dict[str, Outcome]:
    return {item.rule: item.outcome for item in decision.results}


def test_two_policies_disagree_the_most_severe_wins_and_both_are_shown() -> None:
    decision = ask(UNSIGNED, tenant(HEAD + "production\n"), profile="dev")
    seen = outcomes(decision)
    assert seen["require-upstream-signature"] is Outcome.WARN
    assert seen["tenant/team-a/require-upstream-signature"] is Outcome.DENY
    assert not decision.allowed
    assert decision.policy_digest == builtin_profile("dev").digest


def test_what_a_tenant_asks_for_less_has_no_effect_and_is_said() -> None:
    decision = ask(UNSIGNED, tenant(HEAD + "dev\n"))
    seen = outcomes(decision)
    assert seen["require-upstream-signature"] is Outcome.DENY
    assert seen["tenant/team-a/require-upstream-signature"] is Outcome.WARN
    summary = next(item for item in decision.results if item.rule == "tenant/team-a")
    assert summary.outcome is Outcome.WARN
    assert "without effect: " in summary.seen


def test_an_exception_of_the_site_does_not_cover_a_tenants_denial() -> None:
    excused = KernelException(
        name="x",
        kernel=UNSIGNED.kernel.repo,
        digest=UNSIGNED.manifest.digest,
        rules=("require-upstream-signature",),
        reason="the source was reviewed",
        granted=NOW - timedelta(days=1),
        until=NOW + timedelta(days=1),
        requested_by="alice",
        approved_by="bob",
    )
    question = Question(UNSIGNED, PRODUCTION, NOW, (excused,))
    assert question.decide().allowed
    theirs = replace(question, tenants=(tenant(HEAD + "production\n"),))
    assert [item.rule for item in theirs.decide().denials] == [
        "tenant/team-a/require-upstream-signature"
    ]


def test_a_tenants_expression_that_runs_on_is_stopped_and_denies() -> None:
    large = replace(
        good_evidence(), imported=good_evidence().imported | {"depends": ["a/b"] * 1000}
    )
    nested = "kernel.depends.all(a, kernel.depends.all(b, a != b + 'x'))"
    start = time.monotonic()
    decision = ask(large, tenant(EXPRESSION.format(nested)))
    assert outcomes(decision)["tenant/team-a/own"] is Outcome.DENY
    assert time.monotonic() - start < 20  # seconds, the start of the worker included


def test_an_error_in_a_tenants_expression_denies() -> None:
    decision = ask(good_evidence(), tenant(EXPRESSION.format("1 / 0 == 1")))
    assert outcomes(decision)["tenant/team-a/own"] is Outcome.DENY


def test_a_tenant_is_asked_about_its_repositories_only() -> None:
    theirs = tenant(EXPRESSION.format("false"), "acme/*")
    assert ask(good_evidence(), theirs) == evaluate(good_evidence(), PRODUCTION, now=NOW)
    assert not ask(good_evidence(repo="acme/relu"), theirs).allowed


def test_a_policy_about_other_kernels_adds_a_line_and_no_denial() -> None:
    text = EXPRESSION.format("false").replace(
        "spec: {", "spec: {matchConstraints: {kernels: {backends: [rocm]}}, "
    )
    decision = ask(good_evidence(), tenant(text))
    assert decision.allowed
    assert "0 answers" in decision.results[-1].seen


def test_a_question_with_tenants_is_asked_again_from_its_bytes() -> None:
    question = Question(
        UNSIGNED,
        PRODUCTION,
        NOW,
        tenants=(tenant(EXPRESSION.format("kernel.backend == 'rocm' && mirror.site == 'x'")),),
        surroundings={"mirror": {"site": "x", "kernels": 3}},
    )
    data = question.to_bytes()
    again = Question.parse(data)
    assert again.decide() == question.decide()
    assert again.to_bytes() == data


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("Team A", HEAD + "dev\n", "not a tenant's name"),
        ("a", "", "asks nothing"),
        ("a", f"{HEAD}dev\n---\n{HEAD}dev\n", "at most"),
        ("a", HEAD + "nowhere\n", "no profile"),
    ],
)
def test_a_tenant_without_a_usable_policy_is_refused(name: str, text: str, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        load_tenant(name, ["*"], text.encode())


def test_a_tenant_may_not_take_the_site_policy_s_place() -> None:
    site = load_policy((HEAD + "production\n").encode())
    theirs = tenant(HEAD + "dev\n" + "rules: {require-upstream-signature: 'off'}\n")
    decision = tighten(evaluate(UNSIGNED, site, now=NOW), UNSIGNED, (theirs,), site=site, now=NOW)
    assert not decision.allowed
    assert (decision.policy, decision.policy_digest) == (site.name, site.digest)


def test_a_tenants_answer_is_explained_with_the_rules_own_page() -> None:
    theirs = tenant(HEAD + "production\n---\n" + EXPRESSION.format("false"))
    found = explain(UNSIGNED, builtin_profile("dev"), ask(UNSIGNED, theirs, profile="dev"))
    by_rule = {item.rule: item for item in found.rules}
    rule = by_rule["tenant/team-a/require-upstream-signature"]
    assert (rule.title, rule.level) == ("Signed by its publisher", "tenant team-a")
    assert rule.page == "docs/policy-rules.md#require-upstream-signature"
    assert rule.facts
    own = by_rule["tenant/team-a/own"]
    assert (own.title, own.level) == ("An expression of own", "tenant team-a")
    assert by_rule["tenant/team-a"].title == "The tenant was asked"
