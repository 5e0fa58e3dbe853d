"""Expression policies: reading, matching, asking."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from kgate_core.errors import InvalidInput
from kgate_core.evidence import Outcome, RuleResult
from kgate_policy import Policy, builtin_profile, evaluate, load_policy
from kgate_policy.document import load_expressions, read_all
from kgate_policy.evaluation import judge_all
from kgate_policy.expressions.compiling import compile_policy
from kgate_policy.expressions.running import judge
from kgate_policy.facts.collect import kernel_facts
from tests.policykit import NOW, good_evidence

if TYPE_CHECKING:
    from kgate_policy.expressions.model import ExpressionPolicy

HEAD = "apiVersion: kgate.dev/v1\nkind: KernelPolicy\nmetadata: {name: mine}\n"
KERNEL = kernel_facts(good_evidence())


def policy(spec: str, *, head: str = HEAD) -> ExpressionPolicy:
    """Return the policy with this spec, written as a flow mapping or indented lines."""
    return load_expressions(read_all(f"{head}spec: {spec}\n".encode()))[0]


def ask(spec: str, **surroundings: Any) -> tuple[RuleResult, ...]:
    """Ask a policy about one kernel."""
    return judge(policy(spec), [KERNEL], now=NOW, surroundings=surroundings)


def test_a_policy_with_everything_is_read_and_asked() -> None:
    found = policy("""
  matchConstraints: {kernels: {repositories: ["kernels-community/*"], lanes: [production]}}
  matchConditions: [{name: big, expression: kernel.size > 1}]
  variables:
    - {name: gpu, expression: "kernel.backend in ['cuda', 'rocm']"}
    - {name: fine, expression: variables.gpu && kernel.scan.complete}
  params: {maximum: 100000}
  failurePolicy: Fail
  evaluate: Each
  validations:
    - expression: variables.fine && kernel.size < params.maximum
      message: too large or not for a GPU
    - expression: kernel.name == 'other'
      messageExpression: "'the name is ' + kernel.name"
      reason: Renamed
  validationActions: [Deny, Audit]
""")
    results = judge(found, [KERNEL], now=NOW)
    assert [(item.rule, item.outcome) for item in results] == [
        ("mine/1", Outcome.PASS),
        ("mine/2", Outcome.DENY),
    ]
    assert results[1].seen == "the name is activation (kernel.name is activation)"
    assert results[1].hint == "Renamed"


def test_the_answer_names_the_facts_that_were_asked_for() -> None:
    (result,) = ask("{validations: [{expression: kernel.backend == 'rocm', message: rocm only}]}")
    assert result.seen == "rocm only (kernel.backend is cuda)"


def test_the_fix_stands_in_an_annotation() -> None:
    head = HEAD.replace("{name: mine}", "{name: mine, annotations: {kgate.dev/fix: Do this.}}")
    found = policy("{validations: [{expression: 'false'}]}", head=head)
    assert judge(found, [KERNEL], now=NOW)[0].hint == "Do this."


CONSTRAINTS = [
    ("{kernels: {repositories: [other/*]}}", False),
    ("{kernels: {lanes: [experimental]}}", False),
    ("{kernels: {backends: [rocm, cuda]}}", True),
    ("{resourceRules: []}", True),
]


@pytest.mark.parametrize(("constraints", "asked"), CONSTRAINTS)
def test_a_policy_is_asked_about_the_kernels_that_it_names(constraints: str, asked: bool) -> None:  # noqa: FBT001
    spec = f"{{matchConstraints: {constraints}, validations: [{{expression: 'false'}}]}}"
    assert bool(ask(spec)) is asked


PODS = (
    "{matchConstraints: {resourceRules: [{apiGroups: [''], apiVersions: [v1],"
    " resources: [pods], operations: [CREATE, UPDATE]}]}, validations: [{expression: 'false'}]}"
)
CREATE = {"operation": "CREATE", "group": "", "version": "v1", "resource": "pods", "namespace": "a"}


def test_a_policy_for_cluster_requests_is_asked_about_those_only() -> None:
    assert ask(PODS) == ()
    assert ask(PODS, request=CREATE)
    assert ask(PODS, request=CREATE | {"operation": "DELETE"}) == ()
    assert ask(PODS, request=CREATE | {"group": "apps"}) == ()


@pytest.mark.parametrize(
    ("condition", "outcome"),
    [
        ("kernel.size > 1", Outcome.DENY),
        ("kernel.size < 1", None),
        ("object.x == 1", Outcome.DENY),
    ],
)
def test_match_conditions_decide_whether_a_policy_is_asked(
    condition: str, outcome: Outcome | None
) -> None:
    results = ask(
        f'{{matchConditions: [{{name: c, expression: "{condition}"}}],'
        " validations: [{expression: 'false'}]}"
    )
    assert [item.outcome for item in results] == ([] if outcome is None else [outcome])


def test_a_false_condition_wins_over_one_that_fails() -> None:
    spec = (
        "{matchConditions: [{name: a, expression: object.x == 1}, {name: b, expression: 'false'}],"
        " validations: [{expression: 'false'}]}"
    )
    assert ask(spec) == ()


ACTIONS = [
    ("[Deny]", "Fail", Outcome.DENY, Outcome.DENY),
    ("[Warn]", "Fail", Outcome.WARN, Outcome.WARN),
    ("[Audit]", "Fail", Outcome.WARN, Outcome.WARN),
    ("[Deny, Audit]", "Ignore", Outcome.DENY, Outcome.WARN),
]


@pytest.mark.parametrize(("actions", "failure", "no", "error"), ACTIONS)
def test_actions_and_failure_policy_say_how_much_an_answer_counts(
    actions: str, failure: str, no: Outcome, error: Outcome
) -> None:
    tail = f"validationActions: {actions}, failurePolicy: {failure}}}"
    assert ask("{validations: [{expression: 'false'}], " + tail)[0].outcome is no
    broken = ask("{validations: [{expression: object.x == 1}], " + tail)[0]
    assert broken.outcome is error
    assert "no answer: " in broken.seen


def test_an_audit_says_that_it_is_one() -> None:
    (result,) = ask("{validations: [{expression: 'false'}], validationActions: [Audit]}")
    assert result.seen.startswith("audit only: ")


def test_a_variable_that_fails_matters_only_where_it_is_used() -> None:
    results = ask(
        "{variables: [{name: v, expression: object.x}],"
        " validations: [{expression: 'true'}, {expression: variables.v == 1}]}"
    )
    assert [item.outcome for item in results] == [Outcome.PASS, Outcome.DENY]
    assert "variables.v: No value with name" in results[1].seen


def test_variables_that_grow_are_stopped() -> None:
    names = [f"v{index}" for index in range(20)]
    steps = [{"name": "v0", "expression": "'x' + 'y'"}]
    steps += [
        {"name": after, "expression": f"variables.{before} + variables.{before}"}
        for before, after in pairwise(names)
    ]
    (result,) = ask(f"{{variables: {steps}, validations: [{{expression: variables.v19 == ''}}]}}")
    assert result.outcome is Outcome.DENY


def test_a_message_that_cannot_be_made_falls_back_to_the_plain_one() -> None:
    (result,) = ask(
        "{validations: [{expression: 'false', message: plain, messageExpression: object.x.y + ''}]}"
    )
    assert result.seen == "plain"


def test_once_asks_about_all_kernels_together() -> None:
    found = policy("{evaluate: Once, validations: [{expression: kernels.size() == 2}]}")
    assert len(judge(found, [KERNEL, KERNEL], now=NOW)) == 1
    assert judge(found, [KERNEL, KERNEL], now=NOW)[0].outcome is Outcome.PASS


def test_each_answer_about_many_kernels_names_its_kernel() -> None:
    found = policy("{validations: [{expression: kernel.size > 1}]}")
    results = judge(found, [KERNEL, KERNEL | {"repo": "a/b"}], now=NOW)
    assert [item.seen.split(":")[0] for item in results] == [
        f"kernels-community/activation {KERNEL['variant']}",
        f"a/b {KERNEL['variant']}",
    ]


def test_an_empty_set_may_be_allowed_on_purpose_only() -> None:
    spec = "{evaluate: Once, validations: [{expression: 'kernels.all(k, k.size > 0)'}]}"
    assert judge(policy(spec), [], now=NOW)[0].outcome is Outcome.DENY
    assert judge(policy(spec.replace("{evaluate", "{allowNone: true, evaluate")), [], now=NOW) == ()


def test_all_over_a_list_that_may_be_empty_is_advised_against() -> None:
    bare = policy("{validations: [{expression: 'kernel.files.all(f, f.size > 0)'}]}")
    (advice,) = compile_policy(bare).advice
    assert "kernel.files.all(…) is true for an empty list" in advice
    guarded = "kernel.files.size() > 0 && kernel.files.all(f, f.size > 0)"
    assert compile_policy(policy(f"{{validations: [{{expression: '{guarded}'}}]}}")).advice == ()
    once = "{evaluate: Once, validations: [{expression: 'kernels.all(k, k.size > 0)'}]}"
    assert compile_policy(policy(once)).advice == ()


TWICE = "{variables: [{name: a, expression: '1'}, {name: a, expression: '2'}], validations: [%s]}"
MALFORMED = [
    ("{validations: []}", "an empty policy allows nothing"),
    ("{}", "the field 'validations' is missing"),
    ("{validations: [{message: x}]}", "the field 'expression' is missing"),
    ("{validations: [{expression: kernel.sise > 1}]}", "validations[0].expression: 1:7: undefined"),
    ("{validations: [{expression: kernel.repo}]}", "should be of type bool, but is string"),
    ("{validations: [{expression: 'true', messageExpression: 1 + 1}]}", "type string, but is int"),
    (
        "{variables: [{name: 1a, expression: 'true'}], validations: [{expression: 'true'}]}",
        "usable",
    ),
    (
        TWICE % "{expression: 'true'}",
        "variables[1].name: stands twice",
    ),
    (
        "{variables: [{name: a, expression: '1'}], validations: [{expression: variables.a}]}",
        "should be of type bool, but is int",
    ),
    ("{validations: [{expression: variables.a}]}", "undeclared reference to 'variables.a'"),
    ("{validations: [{expression: 'true'}], validationActions: []}", "one or two different"),
    ("{validations: [{expression: 'true'}], validationActions: [Deny, Warn]}", "same thing twice"),
    (
        "{validations: [{expression: 'true'}], validationActions: [Stop]}",
        "one of Deny, Warn, Audit",
    ),
    ("{validations: [{expression: 'true'}], failurePolicy: Maybe}", "one of Fail, Ignore"),
    ("{validations: [{expression: 'true'}], allowNone: maybe}", "expected true or false"),
    ("{validations: [{expression: 'true', message: " + "x" * 2000 + "}]}", "longer than 1024"),
    ("{validations: [" + "{expression: 'true'}," * 65 + "]}", "more than the 64 allowed"),
    ("{validations: [{expression: 'true'}], params: {a: " + "x" * 5000 + "}}", "params: a text of"),
    ("{evaluate: Once, validations: [{expression: kernel.size > 0}]}", "'kernel.size'"),
    ("{validations: [{expression: 'true'}], paramKind: {kind: x}}", "there is no such field"),
    (
        "{validations: [{expression: a}], matchConstraints: {resourceRules: [{apiGroups: []}]}}",
        "the field 'apiVersions' is missing",
    ),
]


@pytest.mark.parametrize(("spec", "message"), MALFORMED)
def test_a_malformed_policy_is_refused_when_it_is_read(spec: str, message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        policy(spec)
    assert message in caught.value.message
    assert caught.value.message.startswith("policy, line ")


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (HEAD.replace("mine", "Mine"), "lower-case letters"),
        (HEAD.replace("v1", "v2"), "expected 'kgate.dev/v1'"),
        (HEAD.replace("KernelPolicy", "Policies"), "unknown kind 'Policies'"),
    ],
)
def test_a_malformed_head_is_refused(head: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        policy("{validations: [{expression: 'true'}]}", head=head)


MIXED = (
    "apiVersion: kgate.dev/v1\nkind: Policy\nname: ours\nextends: production\n---\n"
    f"{HEAD}spec: {{validations: [{{expression: kernel.backend == 'rocm'}}]}}\n"
)


def test_expressions_stand_beside_the_built_in_rules() -> None:
    loaded = load_policy(MIXED.encode())
    decision = evaluate(good_evidence(), loaded, now=NOW)
    assert not decision.allowed
    assert [item.rule for item in decision.denials] == ["mine"]
    assert decision.results[0].rule == "pinned-commit"


def test_the_policys_digest_covers_its_expressions() -> None:
    loaded = load_policy(MIXED.encode())
    other = load_policy(MIXED.replace("'rocm'", "'cuda'").encode())
    foreign = replace(loaded, expressions=(replace(loaded.expressions[0], tenant="a"),))
    without = replace(loaded, expressions=())
    assert len({item.digest for item in (loaded, other, foreign, without)}) == 4


def test_expressions_see_what_the_built_in_rules_said() -> None:
    rule = policy("{validations: [{expression: \"kernel.rules['sbom-present'] == 'pass'\"}]}")
    base = builtin_profile("dev")
    mine = Policy("p", base.rules, base.parameters, (rule,))
    assert evaluate(good_evidence(), mine, now=NOW).allowed
    assert not evaluate(replace(good_evidence(), sbom=None), mine, now=NOW).allowed


def test_a_name_can_be_taken_only_once() -> None:
    rule = policy("{validations: [{expression: 'true'}]}")
    with pytest.raises(InvalidInput, match="taken twice"):
        Policy("p", {}, expressions=(rule, rule))
    with pytest.raises(InvalidInput, match="taken twice"):
        Policy("p", {}, expressions=(replace(rule, name="no-bytecode"),))


def test_tenants_policies_without_a_worker_deny() -> None:
    rule = replace(policy("{validations: [{expression: 'true'}]}"), tenant="team-a")
    (result,) = judge_all([rule], [KERNEL], now=NOW)
    assert result.outcome is Outcome.DENY
    assert "no worker is there" in result.seen
