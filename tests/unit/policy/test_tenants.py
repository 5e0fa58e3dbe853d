"""Tenants' policies: asked in a child process that has little and can be killed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from kgate_core.evidence import Outcome
from kgate_policy import Policy, builtin_profile, evaluate
from kgate_policy.document import load_expressions, read_all
from kgate_policy.expressions import child
from kgate_policy.expressions.tenants import TenantWorker, WorkerLimits
from kgate_policy.facts.collect import kernel_facts
from tests.policykit import NOW, good_evidence

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kgate_policy.expressions.model import ExpressionPolicy

KERNEL = kernel_facts(good_evidence())
# The machine that tests run on is shared: what is asked here takes one or two milliseconds.
PATIENT = WorkerLimits(seconds=2.0)


def tenant_policy(expression: str, name: str = "theirs") -> ExpressionPolicy:
    """Return a tenant's policy with one validation."""
    text = (
        f"apiVersion: kgate.dev/v1\nkind: KernelPolicy\nmetadata: {{name: {name}}}\n"
        f"spec:\n  validations:\n    - expression: >-\n        {expression}\n"
    )
    return load_expressions(read_all(text.encode()), tenant="team-a")[0]


@pytest.fixture(scope="module")
def worker() -> Iterator[TenantWorker]:
    with TenantWorker(PATIENT) as started:
        yield started


def test_a_tenants_policy_is_answered_by_the_worker(worker: TenantWorker) -> None:
    cuda, rocm = tenant_policy("kernel.backend == 'cuda'"), tenant_policy("kernel.noarch", "other")
    results = worker.judge([cuda, rocm], [KERNEL], now=NOW)
    assert [(item.rule, item.outcome) for item in results] == [
        ("theirs", Outcome.PASS),
        ("other", Outcome.DENY),
    ]


def test_the_worker_and_this_process_give_the_same_answers(worker: TenantWorker) -> None:
    ours = replace(tenant_policy("kernel.backend == 'cuda' && now > timestamp(0)"), tenant="")
    base = builtin_profile("production")
    there = evaluate(
        good_evidence(),
        Policy("p", base.rules, base.parameters, (replace(ours, tenant="team-a"),)),
        now=NOW,
        tenants=worker,
    )
    here = evaluate(good_evidence(), Policy("p", base.rules, base.parameters, (ours,)), now=NOW)
    assert there.results == here.results
    assert there.allowed


def test_facts_that_cannot_be_sent_deny(worker: TenantWorker) -> None:
    policy = tenant_policy("true")
    (result,) = worker.judge([policy], [KERNEL | {"size": float("nan")}], now=NOW)
    assert result.outcome is Outcome.DENY


def test_a_policy_that_does_not_compile_there_denies(worker: TenantWorker) -> None:
    broken = replace(tenant_policy("true"), document=b'{"kind":"KernelPolicy"}')
    (result,) = worker.judge([broken], [KERNEL], now=NOW)
    assert result.outcome is Outcome.DENY
    assert worker.judge([tenant_policy("true")], [KERNEL], now=NOW)[0].outcome is Outcome.PASS


def test_a_child_that_does_not_start_denies() -> None:
    with TenantWorker(WorkerLimits(start_seconds=0.0)) as starved:
        (result,) = starved.judge([tenant_policy("true")], [KERNEL], now=NOW)
    assert result.outcome is Outcome.DENY
    assert result.seen == "no answer: stopped after 0 ms"


def test_the_child_answers_unknown_questions_with_an_error() -> None:
    with pytest.raises(KeyError):
        child._serve({"ask": "unknown"}, {})
