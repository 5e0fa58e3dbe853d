"""Joined decisions, tenants that only tighten, exceptions that end."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from kgate_core.errors import InvalidInput
from kgate_core.evidence import Decision, Outcome, Severity
from kgate_policy import Policy, builtin_profile, evaluate, evaluation, join, load_policy
from kgate_policy.baseline import RULES
from kgate_policy.exceptions import KernelException, apply_exceptions, ending_soon
from kgate_policy.joining import loosened
from kgate_policy.parameters import Parameters
from kgate_policy.rules import Answer, Level
from tests.policykit import NOW, good_evidence, with_metadata

DIRTY = with_metadata(provenance=None)
SITE = builtin_profile("production")


def test_the_most_severe_answer_wins_and_both_are_shown() -> None:
    soft = evaluate(DIRTY, builtin_profile("dev"), now=NOW)
    hard = evaluate(DIRTY, SITE, now=NOW)
    assert soft.allowed
    joined = join([soft, hard])
    assert not joined.allowed
    answers = [item for item in joined.results if item.rule == "no-dirty-build"]
    assert [item.outcome for item in answers] == [Outcome.DENY, Outcome.WARN]
    assert answers[0].seen.startswith("production: ")
    assert answers[1].seen.startswith("dev: ")
    assert joined.policy == "dev + production"


def test_answers_that_agree_are_shown_once() -> None:
    one = evaluate(good_evidence(), SITE, now=NOW)
    assert join([one, one]).results == one.results
    assert join([one]) is one


def test_no_tenants_policy_takes_a_denial_away() -> None:
    nothing = Policy("tenant", dict.fromkeys(RULES, Level.WARN))
    denied = evaluate(DIRTY, SITE, now=NOW)
    for order in ([denied, evaluate(DIRTY, nothing, now=NOW)],):
        assert not join(order).allowed
        assert not join(order[::-1]).allowed


def test_an_empty_decision_cannot_hide_in_a_joined_one() -> None:
    one = evaluate(good_evidence(), SITE, now=NOW)
    empty = Decision("empty", one.policy_digest, (), NOW)
    with pytest.raises(InvalidInput, match="cannot be joined"):
        join([one, empty])
    with pytest.raises(InvalidInput, match="no decision to join"):
        join([])


def test_what_a_tenant_asks_less_for_is_said() -> None:
    tenant = Policy(
        "tenant",
        {**SITE.rules, "no-bytecode": Level.WARN},
        Parameters(severity_deny=Severity.CRITICAL),
    )
    assert loosened(SITE, tenant) == (
        "no-bytecode is warn here, but deny at the site",
        "severity.deny is critical here, but high at the site",
    )
    assert loosened(SITE, SITE) == ()
    assert "sbom-present is off here, but deny at the site" in loosened(SITE, Policy("t", {}))


GRANT = KernelException(
    name="grant",
    kernel=good_evidence().kernel.repo,
    digest=good_evidence().manifest.digest,
    rules=("sbom-present", "no-bytecode"),
    reason="A reason of some length.",
    granted=NOW,
    until=NOW + timedelta(days=3),
    requested_by="alice",
    approved_by="bob",
)


def test_exceptions_that_end_soon_are_listed_the_next_first() -> None:
    later = replace(GRANT, name="later", until=NOW + timedelta(days=10))
    far = replace(GRANT, name="far", until=NOW + timedelta(days=100))
    over = replace(GRANT, name="over", granted=NOW - timedelta(days=9), until=NOW)
    found = ending_soon([far, later, over, GRANT], NOW)
    assert [item.name for item in found] == ["grant", "later"]


def test_an_exception_does_not_cover_a_rule_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Answer:
        raise OSError("no luck")

    rule = replace(RULES["sbom-present"], check=broken)
    monkeypatch.setattr(evaluation, "RULES", {rule.id: rule})
    policy = Policy("p", {rule.id: Level.DENY})
    assert not evaluate(good_evidence(), policy, now=NOW, exceptions=[GRANT]).allowed


def test_an_exception_knows_its_days_and_writes_itself() -> None:
    assert GRANT.days_left(NOW) == 3
    assert GRANT.days_left(NOW + timedelta(days=9)) == 0
    assert GRANT.to_json()["until"] == "2026-11-24T12:00:00Z"
    assert apply_exceptions([], [], good_evidence(), NOW) == []


EXPRESSION = (
    b"apiVersion: kgate.dev/v1\nkind: Policy\nname: p\nextends: dev\n---\n"
    b"apiVersion: kgate.dev/v1\nkind: KernelPolicy\nmetadata: {name: mine}\nspec:\n"
    b"  validations: [{expression: kernel.backend == 'rocm'}, {expression: object.x == 1}]\n"
)


def test_an_exception_covers_an_expression_but_not_one_without_an_answer() -> None:
    policy = load_policy(EXPRESSION)
    grant = replace(GRANT, rules=("mine",))
    decision = evaluate(good_evidence(), policy, now=NOW, exceptions=[grant])
    assert [item.rule for item in decision.warnings] == ["mine/1"]
    assert [item.rule for item in decision.denials] == ["mine/2"]
