"""The engine: what compiles, what runs, and that an error never passes."""

from __future__ import annotations

from typing import Any

import pytest

from kgate_core.errors import InvalidInput
from kgate_policy.cel.engine import (
    GROWING,
    MAX_BINDS,
    Kind,
    Result,
    Wanted,
    environment,
)
from kgate_policy.facts.collect import kernel_facts
from tests.policykit import NOW, good_evidence

FACTS: dict[str, Any] = {
    "kernel": kernel_facts(good_evidence()),
    "kernels": [kernel_facts(good_evidence())],
    "object": {"spec": {"cpu": "1500m", "image": "kgate.internal/vllm:1"}},
    "now": NOW,
}


def run(text: str) -> Result:
    """Compile and run one expression over the facts above."""
    env = environment()
    return env.compile(text, wanted=Wanted.BOOL).evaluate(env.activate(FACTS))


HOLD = [
    "kernel.repo == 'kernels-community/activation'",
    "kernel.scan.complete && kernel.scan.worst == 'info'",
    "kernel.scan.findings.size() == 0",
    "kernel.metadata.kernel.dirty == false",
    "kernel.metadata.builder.version.startsWith('0.17')",
    "kernel.files.exists(f, f.path == 'metadata.json' && f.size > 0)",
    "kernels.all(k, k.backend in ['cuda', 'rocm'])",
    "has(kernel.sbom) && !has(kernel.importedAt)",
    "kernel.?importedAt.orValue('never') == 'never'",
    "now > timestamp('2026-01-01T00:00:00Z')",
    "now - duration('24h') < now",
    "kernel.scan.counts['high'] == 0",
    "object.spec.image.split('/')[0] == 'kgate.internal'",
    "cel.bind(n, kernel.files.size(), n > 0 && n < 1000)",
    "math.greatest(1, 2) == 2",
    "kernel.name.matches('^act[a-z]+$')",
    "quantity(object.spec.cpu).isGreaterThan(quantity('1'))",
    "quantity('1000m') == quantity('1')",
    "quantity('1').add(quantity('1')).sub(1).compareTo(quantity('1')) == 0",
    "quantity('2').add(1).asInteger() == 3 && quantity('2').isInteger()",
    "quantity('-1').sign() == -1",
    "isQuantity('1Gi') && !isQuantity('1gi')",
    "semver('1.10.0').isGreaterThan(semver('1.9.0'))",
    "semver('1.2.3').major() + semver('1.2.3').minor() + semver('1.2.3').patch() == 6",
    "isSemver('1.2.3') && !isSemver('v1')",
    "cidr('10.0.0.0/8').containsIP('10.1.2.3')",
    "cidr('10.0.0.0/8').containsIP(ip('10.1.2.3'))",
    "cidr('10.0.0.0/8').containsCIDR(cidr('10.1.0.0/16'))",
    "cidr('10.1.2.3/8').masked() == cidr('10.0.0.0/8')",
    "cidr('10.1.2.3/8').ip() == ip('10.1.2.3') && cidr('10.0.0.0/8').prefixLength() == 8",
    "ip('::1').family() == 6 && ip('::1').isLoopback() && ip('0.0.0.0').isUnspecified()",
    "isIP('1.2.3.4') && isCIDR('1.2.3.4/32') && isURL('https://a/')",
    "url('https://a:1/p?q=x').getPort() == '1' && url('https://a/p?q=x').getQuery()['q'] == ['x']",
    "url('https://a:1/p').getScheme() == 'https' && url('https://a:1/p').getHost() == 'a:1'",
    "url('https://a:1/p').getHostname() == 'a' && url('https://a/p').getEscapedPath() == '/p'",
]


@pytest.mark.parametrize("text", HOLD)
def test_an_expression_that_holds_passes(text: str) -> None:
    assert run(text) == Result(Kind.BOOL, value=True)


ERRORS = [
    ("object.spec.memory == '1'", "Key not found"),
    ("object.status.phase == 'x'", "Key not found"),
    ("kernel.importedAt == ''", "Key not found"),
    ("request.user == 'x'", 'No value with name "request"'),
    ("params.x == 1", 'No value with name "params"'),
    ("1 / 0 == 1", "divide by zero"),
    ("9223372036854775807 + 1 > 0", "overflow"),
    ("quantity('x').sign() == 0", "is not a quantity"),
    ("dyn('1').isGreaterThan(quantity('1'))", "no such overload"),
    ("object.spec.cpu > 1", "o"),
    ("kernel.files[99].size == 1", "ndex"),
    ("timestamp('soon') < now", "o"),
]


@pytest.mark.parametrize(("text", "reason"), ERRORS)
def test_an_error_is_a_value_that_never_holds(text: str, reason: str) -> None:
    result = run(text)
    assert result.kind is Kind.ERROR
    assert reason in result.value
    assert not result.holds


def test_only_a_bool_that_is_true_holds() -> None:
    assert not Result(Kind.STRING, "true").holds
    assert not Result(Kind.OTHER, value=True).holds
    assert not Result(Kind.ERROR, "anything").holds
    assert not Result(Kind.BOOL, value=False).holds


REFUSED = [
    ("kernel.scn.worst == 'x'", "1:7: undefined field 'scn' not found in struct 'Kernel'"),
    ("kernel.files.all(f, f.pth == '')", "undefined field 'pth' not found in struct 'File'"),
    ("kernel.size == '1'", "no matching overload for '_==_' applied to '(int, string)'"),
    ("nothing == 1", "undeclared reference to 'nothing'"),
    ("quantity('1') == '1'", "no matching overload"),
    ("quantity('1').isGreaterThan(semver('1.0.0'))", "no matching overload"),
    ("semver('1.0.0').isLessThan('2.0.0')", "no matching overload"),
    ("kernel.repo", "should be of type bool, but is string"),
    ("object.spec.ok", "should be of type bool, but is dyn"),
    ("1 +", "Syntax error"),
    ("", "Syntax error"),
    ("x" * 5_000, "more than the 4096 allowed"),
    ("(" * 100 + "true" + ")" * 100, "recursion limit"),
    (
        "kernels.all(a, kernels.all(b, kernels.all(c, a == b && b == c)))",
        "3 loops inside each other",
    ),
    ("cel.bind(a,'x'," * (MAX_BINDS + 1) + "true" + ")" * (MAX_BINDS + 1), "9 cel.bind"),
]


@pytest.mark.parametrize(("text", "message"), REFUSED)
def test_what_cannot_be_meant_is_refused_when_it_is_read(text: str, message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        environment().compile(text, wanted=Wanted.BOOL)
    assert message in caught.value.message


def test_a_mistake_is_shown_with_its_line_and_a_caret() -> None:
    with pytest.raises(InvalidInput) as caught:
        environment().compile("kernel.size > 0 &&\n  kernel.sise < 9", wanted=Wanted.BOOL)
    assert caught.value.message == (
        "2:9: undefined field 'sise' not found in struct 'Kernel'\n    kernel.sise < 9\n          ^"
    )


@pytest.mark.parametrize("name", sorted(GROWING))
def test_functions_that_make_texts_grow_are_not_for_tenants(name: str) -> None:
    text = {"replace": "'a'.replace('a', 'b') == 'b'", "join": "['a'].join(',') == 'a'"}[name]
    environment().compile(text, wanted=Wanted.BOOL)
    with pytest.raises(InvalidInput, match="not for tenants"):
        environment().compile(text, wanted=Wanted.BOOL, forbidden=GROWING)


def test_loops_after_each_other_are_not_loops_inside_each_other() -> None:
    text = "kernel.files.map(f, f.size).filter(s, s > 0).map(s, s + 1).all(s, s > 1)"
    assert environment().compile(text, wanted=Wanted.BOOL).shape.loops == 1


def test_the_facts_that_an_expression_asks_for_are_known() -> None:
    text = "kernel.?sbom.orValue('') != '' || kernel.scan.counts['high'] == 0 || has(kernel.cpu)"
    paths = environment().compile(text, wanted=Wanted.BOOL).shape.paths
    assert {"kernel.sbom", "kernel.scan.counts", "kernel.cpu"} <= paths


def test_an_environment_can_lack_a_variable() -> None:
    with pytest.raises(InvalidInput, match=r"undeclared reference to 'kernel\.size'"):
        environment(frozenset({"kernel"})).compile("kernel.size > 0", wanted=Wanted.BOOL)
