"""T25: an empty kernel set, an empty policy, a rule that errors, an unknown field.

Each is denied with its reason, and nothing passes because there was nothing to look at.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from kgate_core.errors import InvalidInput
from kgate_core.evidence import Outcome
from kgate_policy import Policy, evaluate, evaluation, load_policy
from kgate_policy.baseline import RULES
from kgate_policy.document import load_expressions, read_all
from kgate_policy.expressions.running import judge
from kgate_policy.facts.collect import kernel_facts
from kgate_policy.rules import Level
from tests.policykit import NOW, good_evidence

if TYPE_CHECKING:
    from kgate_policy.rules import Answer

KERNEL = kernel_facts(good_evidence())
HEAD = "apiVersion: kgate.dev/v1\nkind: KernelPolicy\nmetadata: {name: mine}\n"


@pytest.mark.parametrize(
    "expression", ["kernels.all(k, k.scan.complete)", "!kernels.exists(k, k.noarch)", "true"]
)
def test_an_empty_kernel_set_is_denied_with_the_reason(expression: str) -> None:
    text = f"{HEAD}spec: {{evaluate: Once, validations: [{{expression: '{expression}'}}]}}"
    (policy,) = load_expressions(read_all(text.encode()))
    (result,) = judge(policy, [], now=NOW)
    assert result.outcome is Outcome.DENY
    assert result.seen == "no kernel is named, and an empty set never passes"


def test_an_empty_policy_set_is_denied_with_the_reason() -> None:
    decision = evaluate(good_evidence(), Policy("empty", {}), now=NOW)
    assert not decision.allowed
    assert decision.denials[0].seen == "the policy empty asks no rule"


def test_a_policy_whose_expressions_are_all_about_others_is_denied() -> None:
    text = (
        f"{HEAD}spec: {{matchConstraints: {{kernels: {{lanes: [x]}}}},"
        " validations: [{expression: 'true'}]}"
    )
    policy = Policy("p", {}, expressions=load_expressions(read_all(text.encode())))
    assert not evaluate(good_evidence(), policy, now=NOW).allowed


def test_a_rule_that_errors_is_denied_with_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Answer:
        raise RuntimeError("disk on fire")

    rule = replace(RULES["sbom-present"], check=broken)
    monkeypatch.setattr(evaluation, "RULES", {rule.id: rule})
    decision = evaluate(good_evidence(), Policy("p", {rule.id: Level.WARN}), now=NOW)
    assert decision.denials[0].seen == "the rule failed: RuntimeError: disk on fire"


def test_an_error_text_is_never_taken_for_true() -> None:
    text = f"{HEAD}spec: {{validations: [{{expression: object.spec.ok == true}}]}}"
    (policy,) = load_expressions(read_all(text.encode()))
    (result,) = judge(policy, [KERNEL], now=NOW, surroundings={"object": {}})
    assert result.outcome is Outcome.DENY
    assert result.seen.startswith("no answer: ")


def test_a_fact_that_does_not_exist_is_refused_when_the_policy_is_read() -> None:
    text = f"{HEAD}spec: {{validations: [{{expression: kernel.signed}}]}}"
    with pytest.raises(InvalidInput, match="undefined field 'signed'"):
        load_expressions(read_all(text.encode()))


def test_an_unknown_field_of_a_policy_is_refused() -> None:
    text = "apiVersion: kgate.dev/v1\nkind: Policy\nname: x\nextends: dev\nallowAll: true\n"
    with pytest.raises(InvalidInput, match="line 5: allowAll: there is no such field"):
        load_policy(text.encode())
