"""Two engines that share no code say the same about the same expressions and facts."""

from __future__ import annotations

from typing import Any

import celpy
import pytest
from celpy.adapter import json_to_cel
from celpy.evaluation import CELEvalError
from hypothesis import given, settings
from hypothesis import strategies as st

from kgate_policy.cel.engine import Wanted, environment
from kgate_policy.facts.collect import kernel_facts
from tests.policykit import finding, good_evidence, with_findings

# Only standard functions: the second engine knows no extensions.
EXPRESSIONS = [
    "kernel.backend == 'cuda'",
    "kernel.repo.startsWith('kernels-community/') && kernel.backend != 'cpu'",
    "kernel.size > 20 || kernel.size < 3",
    "kernel.files.all(f, f.size > 5)",
    "kernel.files.exists(f, f.path.endsWith('.so') && f.size > 10)",
    "kernel.files.exists_one(f, f.path == 'metadata.json')",
    "kernel.files.filter(f, f.size > 12).size() == 1",
    "kernel.scan.findings.all(f, f.severity != 'high')",
    "kernel.scan.counts['high'] + kernel.scan.counts['critical'] == 0",
    "has(kernel.sbom) ? kernel.sbom.startsWith('sha256:') : false",
    "has(kernel.importedAt) && kernel.importedAt == ''",
    "kernel.importedAt == '' || kernel.backend == 'cuda'",
    "kernel.importedAt == '' && kernel.backend == 'rocm'",
    "kernel.importedAt == ''",
    "kernel.name.matches('^[a-z]+$')",
    "kernel.backend in ['cuda', 'rocm'] && !(kernel.name in ['x'])",
    "kernel.files.map(f, f.size).exists(s, s == 13)",
    "1 / (kernel.size - kernel.size) == 1",
    "kernel.files[0].size == 11 && kernel.files[7].size == 0",
    "size(kernel.metadata.archs) == 2 && kernel.metadata.archs[1] == '9.0'",
]
SEEN = [
    kernel_facts(good_evidence()),
    kernel_facts(with_findings(finding("KG-ELF-001"))),
    kernel_facts(good_evidence("metadata.json", "a.so", repo="else/where")),
]


def ours(text: str, facts: dict[str, Any]) -> bool | None:
    """Return our answer; None for an error."""
    env = environment()
    result = env.compile(text, wanted=Wanted.BOOL).evaluate(env.activate({"kernel": facts}))
    return None if result.kind != "bool" else result.holds


def theirs(text: str, facts: dict[str, Any]) -> bool | None:
    """Return the second engine's answer; None for an error."""
    second = celpy.Environment()
    try:
        return bool(second.program(second.compile(text)).evaluate({"kernel": json_to_cel(facts)}))
    except CELEvalError:
        return None


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_a_second_engine_agrees(text: str) -> None:
    for facts in SEEN:
        assert ours(text, facts) == theirs(text, facts)


ATOMS = st.sampled_from(
    [
        "kernel.size > 20",
        "kernel.noarch",
        "kernel.backend == 'cuda'",
        "kernel.importedAt == ''",
        "kernel.files.exists(f, f.size > 30)",
        "kernel.scan.complete",
        "1 / (kernel.size - kernel.size) > 0",
    ]
)
FORMULAS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        inner.map(lambda text: f"!({text})"),
        st.tuples(inner, st.sampled_from(["&&", "||"]), inner).map(
            lambda parts: f"({parts[0]}) {parts[1]} ({parts[2]})"
        ),
    ),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None)
@given(FORMULAS)
def test_a_second_engine_agrees_on_any_combination_with_errors(text: str) -> None:
    assert ours(text, SEEN[0]) == theirs(text, SEEN[0])
