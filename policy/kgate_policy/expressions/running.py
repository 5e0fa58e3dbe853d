"""Asks expression policies about kernels: facts in, rule results out.

What cannot be answered never passes: an absent fact, an engine's error, facts beyond a limit and
an empty set of kernels are failures. Nothing is read or fetched; tenants' policies go through
`tenants` instead, which calls this in a child process.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final

from kgate_core.errors import InvalidInput
from kgate_core.evidence import Outcome, RuleResult
from kgate_policy.cel.engine import Kind, Result
from kgate_policy.expressions.compiling import compile_policy
from kgate_policy.expressions.model import Action, Failure, KernelMatch, Scope
from kgate_policy.facts.limits import check_facts
from kgate_policy.facts.schema import VARIABLES
from kgate_policy.rules import NO_ANSWER

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from kgate_core.evidence import Facts
    from kgate_policy.expressions.compiling import CompiledPolicy
    from kgate_policy.expressions.model import ExpressionPolicy, ResourceRule, Validation

MAX_SEEN: Final = 3  # facts named in one answer
_TEXT: Final = 200  # characters of a value that is shown
_KERNELS: Final = frozenset({"kernel", "kernels"})
_ANY: Final = KernelMatch()
_ROOTS: Final = frozenset(field.name for field in VARIABLES)


def judge(
    policy: ExpressionPolicy,
    kernels: Sequence[Facts],
    *,
    now: datetime,
    surroundings: Mapping[str, Any] | None = None,
) -> tuple[RuleResult, ...]:
    """Ask one policy; no result means that it is about other kernels or requests."""
    around = dict(surroundings or {})
    if not _about_request(policy.resources, around.get("request")):
        return ()
    if policy.params is not None:
        around["params"] = policy.params
    if policy.resources and policy.kernels == _ANY and not _asks_for_kernels(policy):
        # It is about the object alone, whatever kernels go with it.
        return _ask(policy, around | {"now": now}, "")
    if not kernels:
        if policy.allow_none:
            return ()
        seen = "no kernel is named, and an empty set never passes"
        return (_result(policy, 0, Outcome.DENY, seen),)
    chosen = [kernel for kernel in kernels if _about_kernel(policy, kernel)]
    if not chosen:
        return ()
    around |= {"kernels": chosen, "now": now}
    if policy.scope is Scope.ONCE:
        return _ask(policy, around, "")
    many = len(chosen) > 1
    return tuple(
        result
        for kernel in chosen
        for result in _ask(policy, around | {"kernel": kernel}, _label(kernel) if many else "")
    )


def _asks_for_kernels(policy: ExpressionPolicy) -> bool:
    return bool(_KERNELS & compile_policy(policy).asks)


def _label(kernel: Facts) -> str:
    return f"{kernel['repo']} {kernel['variant']}: "


def _about_kernel(policy: ExpressionPolicy, kernel: Facts) -> bool:
    match = policy.kernels
    return all(
        not patterns or any(fnmatchcase(str(kernel[key]), pattern) for pattern in patterns)
        for key, patterns in (
            ("repo", match.repositories),
            ("lane", match.lanes),
            ("backend", match.backends),
        )
    )


def _about_request(rules: tuple[ResourceRule, ...], request: Facts | None) -> bool:
    if not rules:
        return True
    if request is None:
        return False

    def fits(wanted: tuple[str, ...], key: str) -> bool:
        return "*" in wanted or request.get(key) in wanted

    return any(
        fits(rule.groups, "group")
        and fits(rule.versions, "version")
        and fits(rule.resources, "resource")
        and fits(rule.operations, "operation")
        for rule in rules
    )


def _ask(policy: ExpressionPolicy, facts: dict[str, Any], label: str) -> tuple[RuleResult, ...]:
    compiled = compile_policy(policy)
    if compiled.problems:
        return (_failed(policy, 0, f"{label}does not compile: {compiled.problems[0].message}"),)
    # What nobody asks for is neither checked nor handed to the engine.
    facts = {name: value for name, value in facts.items() if name in compiled.asks}
    try:
        check_facts(facts, what="facts")
    except InvalidInput as exc:
        return (_failed(policy, 0, label + exc.message),)
    activation = compiled.environment.activate(facts)
    matched = _matches(compiled, activation)
    if isinstance(matched, Result):
        return (_failed(policy, 0, f"{label}a match condition: {matched.value}"),)
    if not matched:
        return ()
    values, broken = _variables(compiled, facts, activation)
    if values:
        facts = facts | {"variables": values}
        activation = compiled.environment.activate(facts)
    return tuple(
        _validate(policy, compiled, index, facts, activation, label, broken)
        for index in range(len(compiled.validations))
    )


def _matches(compiled: CompiledPolicy, activation: Any) -> bool | Result:  # noqa: ANN401
    """Return whether all conditions hold, or the error if none is plainly false."""
    error = None
    for program in compiled.conditions:
        result = program.evaluate(activation)
        if result.kind is Kind.BOOL and not result.holds:
            return False
        if not result.holds:
            error = result
    return True if error is None else error


def _variables(
    compiled: CompiledPolicy,
    facts: Facts,
    activation: Any,  # noqa: ANN401
) -> tuple[Facts, Mapping[str, str]]:
    values: Facts = {}
    broken: dict[str, str] = {}
    for name, program in compiled.variables:
        if values:
            activation = compiled.environment.activate(facts | {"variables": values})
        result = program.evaluate(activation)
        # Variables can be made of variables: without a cap they could double at each step.
        why = str(result.value) if result.kind is Kind.ERROR else _beyond(result.value, name)
        if why:
            broken[name] = why
        else:
            values[name] = result.value
    return values, broken


def _beyond(value: object, name: str) -> str:
    try:
        check_facts(value, what=f"variable {name}")
    except InvalidInput as exc:
        return exc.message
    return ""


def _validate(
    policy: ExpressionPolicy,
    compiled: CompiledPolicy,
    index: int,
    facts: Facts,
    activation: Any,  # noqa: ANN401
    label: str,
    broken: Mapping[str, str],
) -> RuleResult:
    item, validation = compiled.validations[index], policy.validations[index]
    result = item.program.evaluate(activation)
    paths = item.program.shape.paths
    if result.holds:
        return _result(policy, index, Outcome.PASS, label + _seen(paths, facts, "holds"))
    if result.kind is not Kind.BOOL:
        why = "; ".join(
            f"variables.{n}: {w}" for n, w in broken.items() if f"variables.{n}" in paths
        )
        return _failed(policy, index, f"{label}{why or result.value}")
    message = validation.message or f"failed: {_short(validation.expression)}"
    if item.message is not None:
        said = item.message.evaluate(activation)
        if said.kind is Kind.STRING and said.value.strip() and "\n" not in said.value:
            message = said.value[:1024]
    return _result(
        policy, index, _outcome(policy), label + _seen(paths, facts, message), validation
    )


def _outcome(policy: ExpressionPolicy) -> Outcome:
    return Outcome.DENY if Action.DENY in policy.actions else Outcome.WARN


def _failed(policy: ExpressionPolicy, index: int, why: str) -> RuleResult:
    """Return the result of a question without an answer: it never passes."""
    softer = policy.failure is Failure.IGNORE
    outcome = Outcome.WARN if softer else _outcome(policy)
    return _result(policy, index, outcome, f"{NO_ANSWER}{why}")


def _result(
    policy: ExpressionPolicy,
    index: int,
    outcome: Outcome,
    seen: str,
    validation: Validation | None = None,
) -> RuleResult:
    rule = policy.name if len(policy.validations) == 1 else f"{policy.name}/{index + 1}"
    if outcome is Outcome.PASS:
        return RuleResult(rule, outcome, seen)
    if policy.actions == (Action.AUDIT,):
        seen = f"audit only: {seen}"
    reason = "" if validation is None else validation.reason
    return RuleResult(rule, outcome, seen, policy.fix or reason or f"Ask the author of {rule}.")


def _seen(paths: Iterable[str], facts: Facts, message: str) -> str:
    shown = facts_shown(paths, facts)
    return f"{message} ({'; '.join(shown)})" if shown else message


def facts_shown(paths: Iterable[str], facts: Facts) -> list[str]:
    """Return `path is value` for the facts that an expression asked for, the deepest only."""
    known = sorted(path for path in paths if path.partition(".")[0] in _ROOTS)
    deepest = [p for p in known if not any(other.startswith(f"{p}.") for other in known)]
    shown = []
    for path in deepest:
        value: Any = facts
        for part in path.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value is not None and not isinstance(value, dict | list):
            shown.append(f"{path} is {_short(str(value))}")
    return shown[:MAX_SEEN]


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _TEXT else f"{line[:_TEXT]}…"
