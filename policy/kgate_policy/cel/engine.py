"""Compiles and runs expressions through `cel-expr-python`; nothing else touches that library.

An expression is compiled twice: against typed records, which refuses unknown facts and mixed
types, and against maps, which is what runs. So a fact that is absent is an error instead of a
default. Errors come back as values of kind ERROR: only a BOOL that is true ever passes.

It knows no policies and no facts; sizes of facts are checked by `facts.limits`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from cel_expr_python import cel  # type: ignore[import-untyped]  # it ships no types
from cel_expr_python.ext import ext_bindings, ext_math, ext_optional, ext_strings  # type: ignore[import-untyped]  # it ships no types

from kgate_core.errors import InvalidInput
from kgate_policy.cel.descriptors import checked_variables, descriptors, running_variables
from kgate_policy.cel.functions import checked_functions, running_functions
from kgate_policy.cel.syntax import Shape, read_shape

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MAX_EXPRESSION: Final = 4_096  # characters of one expression
MAX_LOOPS: Final = 2  # comprehensions inside each other
MAX_BINDS: Final = 8  # cel.bind() inside each other: each can double a text
GROWING: Final = frozenset({"replace", "join"})
"""Functions that can make texts much larger than their input: not for tenants."""

_PROBLEM: Final = re.compile(r"ERROR: <input>:(\d+):(\d+): (.*)")
_STATUS: Final = re.compile(r"^(?:[A-Z_]+: )+|\s*\[[A-Z_]+\]$")


class Kind(StrEnum):
    """What an expression came to."""

    BOOL = "bool"
    STRING = "string"
    OTHER = "other"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Result:
    """The value of an expression; for an ERROR, `value` says why."""

    kind: Kind
    value: Any

    @property
    def holds(self) -> bool:
        """True only for a BOOL that is true: an error text is not."""
        return self.kind is Kind.BOOL and self.value is True


class Wanted(StrEnum):
    """Which type an expression has to have."""

    BOOL = "BOOL"
    STRING = "STRING"
    ANY = "any"


@dataclass(frozen=True, slots=True)
class Program:
    """A compiled expression."""

    text: str
    shape: Shape
    type: Any = field(repr=False)
    """Type found by the checker, as the engine spells it."""
    run: Any = field(repr=False)

    def evaluate(self, activation: Any) -> Result:  # noqa: ANN401  # made by `activate`
        """Run over bound facts; never raises for what an expression does."""
        try:
            value = self.run.eval(activation)
            kind = value.type()
            if kind == cel.Type.BOOL:
                return Result(Kind.BOOL, bool(value.value()))
            if kind == cel.Type.STRING:
                return Result(Kind.STRING, str(value.value()))
            if kind == cel.Type.ERROR:
                return Result(Kind.ERROR, _reason(str(value.value())))
            return Result(Kind.OTHER, value.plain_value())
        except (RuntimeError, ValueError, MemoryError, OverflowError, TypeError) as exc:
            return Result(Kind.ERROR, _reason(str(exc)))


@dataclass(frozen=True, slots=True)
class Environment:
    """Names and types that expressions may use: one to check with, one to run with."""

    checking: Any = field(repr=False)
    running: Any = field(repr=False)

    def compile(
        self, text: str, *, wanted: Wanted, forbidden: frozenset[str] = frozenset()
    ) -> Program:
        """Compile one expression; raises InvalidInput with place and caret."""
        if len(text) > MAX_EXPRESSION:
            raise InvalidInput(f"{len(text)} characters are more than the {MAX_EXPRESSION} allowed")
        try:
            checked = self.checking.compile(text)
            run = self.running.compile(text)
            shape = read_shape(run.serialize())
        except (RuntimeError, ValueError) as exc:
            raise InvalidInput(_problem(str(exc), text)) from exc
        found = checked.return_type()
        if wanted is not Wanted.ANY and found.name() != wanted.value:
            raise InvalidInput(
                f"should be of type {wanted.value.lower()}, but is {found.name().lower()}"
            )
        _check_shape(shape, forbidden)
        return Program(text, shape, found, run)

    def activate(self, facts: Mapping[str, Any]) -> Any:  # noqa: ANN401
        """Bind facts to names, for any number of expressions."""
        return self.running.Activation(dict(facts))


def _check_shape(shape: Shape, forbidden: frozenset[str]) -> None:
    if shape.loops > MAX_LOOPS:
        raise InvalidInput(f"{shape.loops} loops inside each other, {MAX_LOOPS} are allowed")
    if shape.binds > MAX_BINDS:
        raise InvalidInput(f"{shape.binds} cel.bind inside each other, {MAX_BINDS} are allowed")
    refused = sorted(shape.calls & forbidden)
    if refused:
        raise InvalidInput(f"{refused[0]}() can make texts grow and is not for tenants")


def environment(
    without: frozenset[str] = frozenset(), variables: Mapping[str, Program] = MappingProxyType({})
) -> Environment:
    """Return an environment, less some variables, plus a policy's own `variables.<name>`."""
    if not variables:
        return _plain(without)
    return _build(without, variables)


@cache
def _plain(without: frozenset[str]) -> Environment:
    return _build(without, {})


def _build(without: frozenset[str], variables: Mapping[str, Program]) -> Environment:
    checked, running = checked_variables(), running_variables()
    for name in without:
        del checked[name], running[name]
    for name, program in variables.items():
        checked[f"variables.{name}"] = program.type
    if variables:
        running["variables"] = cel.Type.Map(cel.Type.STRING, cel.Type.DYN)
    return Environment(
        _make(checked, checked_functions(), pool=descriptors()),
        _make(running, _running_functions()),
    )


@cache
def _running_functions() -> list[Any]:
    return running_functions()


def _make(types: Mapping[str, Any], functions: Sequence[Any], pool: Any = None) -> Any:  # noqa: ANN401
    extensions = [
        ext_optional.ExtOptional(),
        ext_strings.ExtStrings(),
        ext_bindings.ExtBindings(),
        ext_math.ExtMath(),
    ]
    extra = {} if pool is None else {"descriptor_pool": pool}
    return cel.NewEnv(variables=dict(types), functions=functions, extensions=extensions, **extra)


def _problem(message: str, text: str) -> str:
    """Return the engine's first complaint as `line:column: what`, with the line and a caret."""
    found = _PROBLEM.search(message)
    if found is None:
        return _reason(message)
    line, column = int(found[1]), int(found[2])
    lines = text.splitlines() or [""]
    shown = lines[min(line, len(lines)) - 1]
    said = found[3].replace("kgate.facts.v1.", "")
    return f"{line}:{column}: {said}\n  {shown}\n  {' ' * (column - 1)}^"


def _reason(message: str) -> str:
    return _STATUS.sub("", message.strip().splitlines()[0]) if message.strip() else "no reason"
