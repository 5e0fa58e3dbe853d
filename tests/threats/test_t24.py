"""T24: a policy file with a runaway or malicious expression, or facts nested ten thousand deep.

Refused or stopped within its budget; the process that asked lives on and answers the next
question. Every attack is carried out for real, in this process or in the tenants' worker.
"""

from __future__ import annotations

import resource
import time
from typing import TYPE_CHECKING, Any

import pytest

from kgate_core.errors import InvalidInput
from kgate_core.evidence import Outcome
from kgate_policy.document import load_expressions, load_policy, read_all
from kgate_policy.expressions.running import judge
from kgate_policy.expressions.tenants import TenantWorker, WorkerLimits
from kgate_policy.facts.collect import kernel_facts
from tests.policykit import NOW, good_evidence

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kgate_policy.expressions.model import ExpressionPolicy

KERNEL = kernel_facts(good_evidence())
MANY: dict[str, Any] = KERNEL | {
    "files": [{"path": f"f{n}", "size": n, "digest": "x" * 64} for n in range(1_000)]
}
BUDGET = 10.0  # seconds; far above what is measured, far below "for ever"


def policy(expression: str, *, tenant: str = "") -> ExpressionPolicy:
    """Return a policy with one validation."""
    text = (
        "apiVersion: kgate.dev/v1\nkind: KernelPolicy\nmetadata: {name: attack}\n"
        f"spec:\n  validations:\n    - expression: >-\n        {expression}\n"
    )
    return load_expressions(read_all(text.encode()), tenant=tenant)[0]


STOPPED_HERE = [
    # A million steps: the engine's own budget of 10,000 ends it.
    "kernel.files.all(a, kernel.files.all(b, a.size + b.size >= 0))",
    # A pattern that makes backtracking engines run for ever; RE2 answers in linear time, no.
    "kernel.files.exists(f, ('aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab' + f.path).matches('^(a+)+$'))",
    # Copies of a list inside a list.
    "kernel.files.map(a, kernel.files).size() == 3",
    "kernel.files.map(a, kernel.files.map(b, kernel.files)).size() == 3",
]


@pytest.mark.parametrize("expression", STOPPED_HERE)
def test_a_runaway_expression_of_the_site_ends_within_its_budget(expression: str) -> None:
    start = time.perf_counter()
    (result,) = judge(policy(expression), [MANY], now=NOW)
    assert time.perf_counter() - start < BUDGET
    assert result.outcome is Outcome.DENY


REFUSED = [
    "kernels.all(a, kernels.all(b, kernels.all(c, kernels.all(d, true))))",
    "(" * 2_000 + "true" + ")" * 2_000,
    "true && " * 2_000 + "true",
    "'x'.matches('" + "(a{1000}){1000}" + "')",
    "cel.bind(a, 'xxxxxxxx', " + "cel.bind(a, a + a, " * 40 + "a == ''" + ")" * 41,
]


@pytest.mark.parametrize("expression", REFUSED)
def test_an_expression_made_to_hurt_is_refused_or_denied(expression: str) -> None:
    start = time.perf_counter()
    try:
        (result,) = judge(policy(expression), [KERNEL], now=NOW)
    except InvalidInput:
        pass
    else:
        assert result.outcome is Outcome.DENY
    assert time.perf_counter() - start < BUDGET


@pytest.fixture(scope="module")
def worker() -> Iterator[TenantWorker]:
    with TenantWorker(WorkerLimits(seconds=0.25)) as started:
        yield started


# Within the engine's budget of steps, but each step compares two long lists.
SLOW = (
    "kernel.files.filter(f, f.size < 8).exists(x, kernel.files.exists(y,"
    " kernel.files == kernel.files && kernel.files == kernel.files && x.size > 9))"
)


def test_a_tenants_slow_policy_is_killed_and_the_next_question_answered(
    worker: TenantWorker,
) -> None:
    start = time.perf_counter()
    (result,) = worker.judge([policy(SLOW, tenant="team-a")], [MANY], now=NOW)
    assert time.perf_counter() - start < BUDGET
    assert result.outcome is Outcome.DENY
    assert result.seen == "no answer: stopped after 250 ms"
    fine = policy("kernel.backend == 'cuda'", tenant="team-b")
    (after,) = worker.judge([fine], [KERNEL], now=NOW)
    assert after.outcome is Outcome.PASS


GROWING = (
    "cel.bind(a, kernel.files.map(f, f.digest), cel.bind(b, a + a + a + a + a + a + a + a,"
    " cel.bind(c, b + b + b + b + b + b + b + b, cel.bind(d, c + c + c + c + c + c + c + c,"
    " cel.bind(e, d + d + d + d + d + d + d + d, cel.bind(g, e + e + e + e + e + e + e + e,"
    " g.size() == 1))))))"
)


def test_a_tenant_cannot_fill_the_memory(worker: TenantWorker) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (result,) = worker.judge([policy(GROWING, tenant="team-a")], [MANY], now=NOW)
    assert result.outcome is Outcome.DENY
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert after - before < 64 * 1024  # kilobytes: it was not this process that grew


@pytest.mark.parametrize("expression", ["'a'.replace('a', 'aa') == ''", "['a'].join('b') == ''"])
def test_a_tenants_policy_may_not_make_texts_grow(expression: str) -> None:
    with pytest.raises(InvalidInput, match="not for tenants"):
        policy(expression, tenant="team-a")


def deep(levels: int) -> Any:
    """Return facts nested so deep."""
    value: Any = "x"
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize("levels", [65, 10_000, 100_000])
def test_facts_nested_thousands_deep_deny_and_the_process_lives(levels: int) -> None:
    found = judge(
        policy("object.a.a.a == 'x'"), [KERNEL], now=NOW, surroundings={"object": deep(levels)}
    )
    assert [item.outcome for item in found] == [Outcome.DENY]
    assert "nested deeper than 64" in found[0].seen


def test_facts_nested_thousands_deep_deny_in_the_worker_too(worker: TenantWorker) -> None:
    (result,) = worker.judge(
        [policy("true", tenant="t")], [KERNEL], now=NOW, surroundings={"object": deep(10_000)}
    )
    assert result.outcome is Outcome.DENY


@pytest.mark.parametrize(
    "text",
    [
        "a: " + "[" * 10_000,
        "a: &a [x]\nb: &b [*a, *a]\nc: [*b, *b]\n",
        "!!python/object/apply:os.system ['true']",
        "x" * 300_000,
    ],
)
def test_a_policy_file_made_to_hurt_its_reader_is_refused(text: str) -> None:
    start = time.perf_counter()
    with pytest.raises(InvalidInput):
        load_policy(text.encode())
    assert time.perf_counter() - start < BUDGET
