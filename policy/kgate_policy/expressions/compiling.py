"""Compiles all expressions of a policy and collects every problem instead of the first only.

Compiled policies are kept: compiling is a pure function of the document. Nothing runs here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from kgate_core.errors import InvalidInput
from kgate_policy.cel.engine import GROWING, Environment, Program, Wanted, environment
from kgate_policy.expressions.model import Scope

if TYPE_CHECKING:
    from kgate_policy.expressions.model import ExpressionPolicy

_KEPT: Final = 256  # compiled policies


@dataclass(frozen=True, slots=True)
class Problem:
    """Why one expression does not compile."""

    list: str
    """Field of the spec: matchConditions, variables or validations."""
    index: int
    field: str
    message: str


@dataclass(frozen=True, slots=True)
class CompiledValidation:
    """A validation's expression, and its message's if there is one."""

    program: Program
    message: Program | None


@dataclass(frozen=True, slots=True)
class CompiledPolicy:
    """Everything of a policy that runs; unusable if there are problems."""

    environment: Environment = field(repr=False)
    conditions: tuple[Program, ...]
    variables: tuple[tuple[str, Program], ...]
    validations: tuple[CompiledValidation, ...]
    problems: tuple[Problem, ...]
    advice: tuple[str, ...]
    """What compiles, but probably does not say what was meant."""
    asks: frozenset[str]
    """Variables that any expression asks for: only these are checked and bound."""


class _Compiler:
    def __init__(self, policy: ExpressionPolicy) -> None:
        self._without = frozenset({"kernel"}) if policy.scope is Scope.ONCE else frozenset[str]()
        self._forbidden = GROWING if policy.tenant else frozenset[str]()
        self._variables: dict[str, Program] = {}
        self.problems: list[Problem] = []
        self.environment = environment(self._without)

    def add(self, name: str, program: Program) -> None:
        """Make a variable known to all later expressions."""
        self._variables[name] = program
        self.environment = environment(self._without, dict(self._variables))

    def compile(self, text: str, wanted: Wanted, place: tuple[str, int, str]) -> Program | None:
        """Compile one expression or note why not."""
        try:
            return self.environment.compile(text, wanted=wanted, forbidden=self._forbidden)
        except InvalidInput as exc:
            self.problems.append(Problem(*place, exc.message))
            return None


@lru_cache(maxsize=_KEPT)
def compile_policy(policy: ExpressionPolicy) -> CompiledPolicy:
    """Compile a policy; what does not compile is in `problems`."""
    compiler = _Compiler(policy)
    conditions = [
        program
        for index, item in enumerate(policy.conditions)
        if (
            program := compiler.compile(
                item.expression, Wanted.BOOL, ("matchConditions", index, "expression")
            )
        )
    ]
    variables: list[tuple[str, Program]] = []
    for index, item in enumerate(policy.variables):
        place = ("variables", index, "expression")
        program = compiler.compile(item.expression, Wanted.ANY, place)
        if program is not None:
            variables.append((item.name, program))
            compiler.add(item.name, program)
    validations: list[CompiledValidation] = []
    for index, validation in enumerate(policy.validations):
        place = ("validations", index, "expression")
        program = compiler.compile(validation.expression, Wanted.BOOL, place)
        message = None
        if validation.message_expression:
            place = ("validations", index, "messageExpression")
            message = compiler.compile(validation.message_expression, Wanted.STRING, place)
        if program is not None:
            validations.append(CompiledValidation(program, message))
    programs = [*conditions, *(program for _, program in variables)]
    programs += [item.program for item in validations]
    programs += [item.message for item in validations if item.message is not None]
    return CompiledPolicy(
        compiler.environment,
        tuple(conditions),
        tuple(variables),
        tuple(validations),
        tuple(compiler.problems),
        _advice(policy, validations),
        frozenset(path.partition(".")[0] for item in programs for path in item.shape.paths),
    )


def _advice(policy: ExpressionPolicy, validations: list[CompiledValidation]) -> tuple[str, ...]:
    said = []
    for index, item in enumerate(validations):
        # `kernels` is never empty; every other list may be, and then all() is true.
        unsized = item.program.shape.universal - item.program.shape.sized - {"kernels"}
        said += [
            f"{policy.name}: validations[{index}]: {path}.all(…) is true for an empty list; "
            f"add `{path}.size() > 0 &&` if that should not pass"
            for path in sorted(unsized)
        ]
    return tuple(said)
