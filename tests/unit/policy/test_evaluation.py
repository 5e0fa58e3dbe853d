"""`evaluate` is a pure function; no evidence, no rule or no answer means deny."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from kgate_core.errors import InvalidInput
from kgate_core.evidence import Outcome
from kgate_policy import Policy, builtin_profile, evaluate, evaluation
from kgate_policy.baseline import RULES
from kgate_policy.parameters import Parameters
from kgate_policy.profiles import PROFILES
from kgate_policy.rules import Level
from tests.policykit import NOW, good_evidence, with_metadata

if TYPE_CHECKING:
    from kgate_policy.rules import Answer


def test_evaluate_is_a_pure_function() -> None:
    policy = builtin_profile("production")
    first = evaluate(good_evidence(), policy, now=NOW)
    again = evaluate(good_evidence(), policy, now=NOW)
    assert json.dumps(first.to_json()) == json.dumps(again.to_json())
    assert first.policy_digest == policy.digest


def test_an_empty_policy_denies_and_says_so() -> None:
    decision = evaluate(good_evidence(), Policy("nothing", {}), now=NOW)
    assert not decision.allowed
    assert decision.denials[0].seen == "the policy nothing asks no rule"


def test_a_policy_with_every_rule_off_denies() -> None:
    off = Policy("off", dict.fromkeys(RULES, Level.OFF))
    assert not evaluate(good_evidence(), off, now=NOW).allowed


@pytest.mark.parametrize("level", [Level.DENY, Level.WARN])
def test_a_rule_that_raises_denies_with_its_error(
    monkeypatch: pytest.MonkeyPatch, level: Level
) -> None:
    def broken(*_: object) -> Answer:
        raise ZeroDivisionError("no such luck")

    rule = replace(RULES["no-bytecode"], check=broken)
    monkeypatch.setattr(evaluation, "RULES", {rule.id: rule})
    decision = evaluate(good_evidence(), Policy("p", {rule.id: level}), now=NOW)
    assert not decision.allowed
    assert decision.denials[0].seen == "the rule failed: ZeroDivisionError: no such luck"


def test_a_rule_that_is_set_to_warn_does_not_deny() -> None:
    policy = Policy("p", {"metadata-id-safe": Level.WARN})
    decision = evaluate(with_metadata(id="json"), policy, now=NOW)
    assert decision.allowed
    assert [result.outcome for result in decision.results] == [Outcome.WARN]


def test_a_rule_that_nobody_wrote_cannot_be_in_a_policy() -> None:
    with pytest.raises(InvalidInput, match="there is no rule 'no-such'"):
        Policy("p", {"no-such": Level.DENY})


def test_every_setting_changes_the_digest_of_a_policy() -> None:
    base = PROFILES["staging"]
    changed = [
        replace(base, name="other"),
        replace(base, rules={**base.rules, "no-bytecode": Level.WARN}),
        replace(base, rules={**base.rules, "no-bytecode": Level.OFF}),
        replace(base, parameters=Parameters(backends_allow=("cuda",))),
    ]
    assert len({policy.digest for policy in (base, *changed)}) == 1 + len(changed)


def test_the_order_of_a_list_does_not_change_the_digest() -> None:
    one = Policy("p", {}, Parameters(backends_allow=("cuda", "rocm")))
    other = Policy("p", {}, Parameters(backends_allow=("rocm", "cuda")))
    assert one.digest == other.digest


def test_every_profile_names_every_rule_and_leaves_out_the_special_ones_only() -> None:
    for policy in PROFILES.values():
        assert set(policy.rules) == set(RULES)
        off = {rule for rule, level in policy.rules.items() if level is Level.OFF}
        special = set() if policy.name == "approved-algorithms" else {"approved-digests"}
        assert off == special | {"qualified", "rebuilt-here", "advisories-consulted"}
