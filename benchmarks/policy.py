"""What hostile policies, facts and files cost, and what an honest policy costs.

Each abuse runs in a process of its own, so that its peak of memory is its own; a figure is the time
until it was refused or stopped. The ratios are against the honest policy, in this run. The last
line is the result.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT)]

from kgate_core.errors import InvalidInput  # noqa: E402  # after the path
from kgate_core.evidence import Outcome  # noqa: E402
from kgate_policy.document import load_expressions, load_policy, read_all  # noqa: E402
from kgate_policy.expressions.running import judge  # noqa: E402
from kgate_policy.expressions.tenants import TenantWorker  # noqa: E402
from kgate_policy.facts.collect import kernel_facts  # noqa: E402
from kgate_policy.samples import sample_evidence  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

    from kgate_policy.expressions.model import ExpressionPolicy

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
ITEMS = 1000  # the most that facts may hold in one list
ROUNDS = 200
KERNELS = 5
EXPRESSIONS = 20


def policy_of(*expressions: str, tenant: str = "") -> ExpressionPolicy:
    spec = {"validations": [{"expression": text} for text in expressions]}
    document = {
        "apiVersion": "kgate.dev/v1",
        "kind": "KernelPolicy",
        "metadata": {"name": "benchmark"},
        "spec": spec,
    }
    return load_expressions(read_all(json.dumps(document).encode()), tenant=tenant)[0]


def large_facts() -> dict[str, Any]:
    return kernel_facts(sample_evidence()) | {"imports": [f"module{n:04}" for n in range(ITEMS)]}


def denied(policy: ExpressionPolicy, facts: dict[str, Any]) -> None:
    results = judge(policy, [facts], now=NOW)
    assert [item.outcome for item in results] == [Outcome.DENY], results


def nested_loops() -> Callable[[], None]:
    policy = policy_of("kernel.imports.all(a, kernel.imports.all(b, a + b != ''))")
    return lambda: denied(policy, large_facts())


def list_copies() -> Callable[[], None]:
    policy = policy_of("kernel.imports.map(a, kernel.imports + kernel.imports).size() < 0")
    return lambda: denied(policy, large_facts())


def regular_expression() -> Callable[[], None]:
    facts = kernel_facts(sample_evidence()) | {"pin": "a" * 4095 + "!"}
    policy = policy_of("kernel.pin.matches('^(a+)+$')")
    return lambda: denied(policy, facts)


def deep_facts() -> Callable[[], None]:
    value: Any = 1
    for _ in range(100_000):
        value = [value]
    policy = policy_of("object != null")
    facts = kernel_facts(sample_evidence())

    def ask() -> None:
        results = judge(policy, [facts], now=NOW, surroundings={"object": value})
        assert [item.outcome for item in results] == [Outcome.DENY], results

    return ask


def deep_yaml() -> Callable[[], None]:
    data = b"a: " + b"[" * 10_000 + b"]" * 10_000

    def read() -> None:
        try:
            load_policy(data)
        except InvalidInput:
            return
        raise AssertionError("10,000 nested lists were read")

    return read


def tenant_loops() -> Callable[[], None]:
    # More than 100 ms of work below every budget of the engine: only the timer stops it.
    text = "kernel.imports.map(a, kernel.imports + kernel.imports).size() < 0"
    slow = policy_of(*[text] * 8, tenant="team")
    worker = TenantWorker()
    worker.judge([policy_of("kernel.size > 0", tenant="team")], [large_facts()], now=NOW)

    def ask() -> None:
        with worker:
            results = worker.judge([slow], [large_facts()], now=NOW)
        assert all(item.outcome is Outcome.DENY for item in results), results
        assert "stopped" in results[0].seen, results

    return ask


ABUSES = {
    "nested_loops": nested_loops,
    "list_copies": list_copies,
    "regular_expression": regular_expression,
    "deep_facts": deep_facts,
    "deep_yaml": deep_yaml,
    "tenant_loops": tenant_loops,
}


def honest() -> list[float]:
    """Return the CPU milliseconds of each round over several kernels and many expressions."""
    policy = policy_of(
        *(f"kernel.files.all(f, f.size >= 0) && kernel.size > {n}" for n in range(EXPRESSIONS))
    )
    kernels = [kernel_facts(sample_evidence()) for _ in range(KERNELS)]
    judge(policy, kernels, now=NOW)
    taken = []
    for _ in range(ROUNDS):
        begun = time.process_time()
        results = judge(policy, kernels, now=NOW)
        taken.append((time.process_time() - begun) * 1000)
        assert all(item.outcome is Outcome.PASS for item in results)
    return taken


def child(name: str) -> None:
    ask = ABUSES[name]()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.monotonic()
    ask()
    taken = time.monotonic() - begun
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"ms": taken * 1000, "mb": (after - before) / 1000}))


def main() -> None:
    if len(sys.argv) > 1:
        child(sys.argv[1])
        return
    rounds = honest()
    figures: dict[str, Any] = {
        "honest_cpu_ms_p50": round(statistics.median(rounds), 1),
        "honest_cpu_ms_p99": round(statistics.quantiles(rounds, n=100)[98], 1),
    }
    for name in ABUSES:
        run = subprocess.run(
            [sys.executable, __file__, name], stdout=subprocess.PIPE, check=True, timeout=60
        )
        found = json.loads(run.stdout.splitlines()[-1])
        figures[f"{name}_ms"] = round(found["ms"])
        figures[f"{name}_mb"] = round(found["mb"])
        figures[f"{name}_over_honest"] = round(found["ms"] / statistics.median(rounds))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
