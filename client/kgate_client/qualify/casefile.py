"""What to try with a kernel: functions, arguments, shapes, dtypes, seeds, tolerances, as JSON.

A case file is data. Its digest stands in every result, so that two results can be compared. The
reference is a layer from `references` or a `module:function` that the judge imports; the file is
therefore as trusted as a program. Nothing is run here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kgate_core import strictjson
from kgate_core.digest import Digest
from kgate_core.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from collections.abc import Mapping

SCHEMA: Final = "kgate.dev/qualification-cases/v1"
SHIPPED: Final = Path(__file__).parent / "cases"
DTYPES: Final[dict[str, int]] = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}
"""Known dtypes with their size in bytes."""
TOLERANCE: Final = 1e-3
MAX_FILE: Final = 1024**2  # bytes
MAX_ELEMENTS: Final = 2**28  # of one tensor
MAX_COMBINATIONS: Final = 2000  # shapes by dtypes by seeds of one file
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")
_PATH: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*){0,7}")
_REFERENCE: Final = re.compile(r"[A-Za-z_][\w.]*(:[A-Za-z_][\w.]*)?")


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far a number may be off, as `torch.testing.assert_close` reads it."""

    atol: float = TOLERANCE
    rtol: float = TOLERANCE


@dataclass(frozen=True, slots=True)
class Case:
    """One function of a kernel and how to try it."""

    function: str
    """Dotted name inside the kernel's module; a class is made without arguments first."""
    reference: str
    """A name in `references`, or `module:function`."""
    call: tuple[str | float | int, ...]
    """The arguments in their order: names of tensors, or numbers as they are."""
    output: str
    """The tensor that holds the answer."""
    returned: bool
    """True if the function returns the answer; False if it writes into the argument `output`."""
    shapes: tuple[Mapping[str, tuple[int, ...]], ...]
    """For each try, the shape of every tensor."""
    dtypes: tuple[str, ...]
    seeds: tuple[int, ...]
    tolerances: Mapping[str, Tolerance]
    """By dtype; the default is 1e-3 for both."""
    scale: float = 1.0
    """Standard deviation of the inputs, which are normally distributed around zero."""
    repeatable: bool = True
    """Whether equal inputs must give equal bits."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """The tensors that the function reads, in their order."""
        return tuple(item for item in self.call if isinstance(item, str) and item != self.output)

    @property
    def asked(self) -> tuple[str | float | int, ...]:
        """The arguments of the reference: all but the output."""
        return tuple(item for item in self.call if item != self.output)

    def tolerance(self, dtype: str) -> Tolerance:
        """Return how far an answer in this dtype may be off."""
        return self.tolerances.get(dtype, Tolerance())


@dataclass(frozen=True, slots=True)
class CaseFile:
    """A case file with the digest of its bytes."""

    name: str
    repos: tuple[str, ...]
    """Repositories that it is meant for, where it ships with kgate."""
    cases: tuple[Case, ...]
    digest: Digest
    data: bytes

    @classmethod
    def parse(cls, data: bytes) -> CaseFile:
        """Read a case file; raises InvalidInput."""
        what = "case file"
        document = strictjson.loads(data, what=what, max_bytes=MAX_FILE, floats=True)
        strictjson.refuse_unknown(document, {"schema", "name", "repos", "cases"}, what=what)
        schema = strictjson.take(document, "schema", str, what=what)
        if schema != SCHEMA:
            raise InvalidInput(f"{what}: the schema is {schema!r}, not {SCHEMA}")
        repos = strictjson.take_strings(document, "repos", what=what) if "repos" in document else ()
        found = strictjson.take(document, "cases", list, what=what)
        cases = tuple(_case(item, f"{what}: case {n}") for n, item in enumerate(found, start=1))
        if not cases:
            raise InvalidInput(f"{what}: it holds no case", hint="see docs/qualification.md")
        tries = sum(len(one.shapes) * len(one.dtypes) * len(one.seeds) for one in cases)
        if tries > MAX_COMBINATIONS:
            raise InvalidInput(f"{what}: {tries} tries are more than {MAX_COMBINATIONS}")
        name = strictjson.take(document, "name", str, what=what)
        return cls(name, repos, cases, Digest.of(data), data)

    @classmethod
    def read(cls, path: Path) -> CaseFile:
        """Read a case file from disk; raises InvalidInput."""
        try:
            with path.open("rb") as stream:
                return cls.parse(stream.read(MAX_FILE + 1))
        except OSError as exc:
            raise InvalidInput(f"{path} cannot be read ({exc.strerror})") from exc


def shipped_for(name: str) -> CaseFile:
    """Return the case file that ships with kgate for a kernel; raises NotFound.

    `name` is `org/name`, or a kernel's bare name with `-` or `_`.
    """
    wanted = name.rpartition("/")[2].replace("_", "-")
    for path in sorted(SHIPPED.glob("*.json")):
        found = CaseFile.read(path)
        if wanted == found.name or name in found.repos:
            return found
    raise NotFound(
        f"kgate ships no cases for {name}",
        hint="write some and name the file with --cases: see docs/qualification.md",
    )


def _case(data: Any, what: str) -> Case:  # noqa: ANN401  # JSON
    known = {"function", "reference", "call", "output", "returned", "shapes", "dtypes", "seeds"}
    strictjson.refuse_unknown(data, known | {"tolerances", "scale", "repeatable"}, what=what)
    call = tuple(_argument(item, what) for item in strictjson.take(data, "call", list, what=what))
    output = data.get("output", "out")
    case = Case(
        _matching(_PATH, strictjson.take(data, "function", str, what=what), what),
        _matching(_REFERENCE, strictjson.take(data, "reference", str, what=what), what),
        call,
        _matching(_NAME, output, what),
        returned=output not in call,
        shapes=_shapes(strictjson.take(data, "shapes", list, what=what), what),
        dtypes=strictjson.take_strings(data, "dtypes", what=what),
        seeds=tuple(data.get("seeds", [0])),
        tolerances=_tolerances(data.get("tolerances", {}), what),
        scale=_number(data.get("scale", 1.0), what),
        repeatable=data.get("repeatable", True) is True,
    )
    if not all(type(seed) is int for seed in case.seeds) or not case.seeds:
        raise InvalidInput(f"{what}: seeds are integers, and there is at least one")
    if not case.dtypes or not set(case.dtypes) <= set(DTYPES):
        raise InvalidInput(f"{what}: dtypes are some of {', '.join(DTYPES)}")
    if not case.inputs:
        raise InvalidInput(f"{what}: the function reads no tensor")
    tensors = {*case.inputs, case.output}
    for shape in case.shapes:
        if set(shape) != tensors:
            raise InvalidInput(f"{what}: each shape names {', '.join(sorted(tensors))}")
    return case


def _argument(item: Any, what: str) -> str | float | int:  # noqa: ANN401  # JSON
    if isinstance(item, str):
        return _matching(_NAME, item, what)
    if isinstance(item, int | float) and not isinstance(item, bool):
        return item
    raise InvalidInput(f"{what}: an argument is a tensor's name or a number")


def _shapes(items: list[Any], what: str) -> tuple[dict[str, tuple[int, ...]], ...]:
    shapes = []
    for item in items:
        if not isinstance(item, dict):
            raise InvalidInput(f"{what}: a shape is an object of lists of numbers")
        shapes.append(
            {_matching(_NAME, name, what): _shape(dims, what) for name, dims in item.items()}
        )
    if not shapes:
        raise InvalidInput(f"{what}: there is no shape to try")
    return tuple(shapes)


def _shape(dims: Any, what: str) -> tuple[int, ...]:  # noqa: ANN401  # JSON
    if not isinstance(dims, list) or not all(type(n) is int and n > 0 for n in dims):
        raise InvalidInput(f"{what}: a shape is a list of positive integers")
    elements = 1
    for n in dims:
        elements *= n
    if elements > MAX_ELEMENTS:
        raise InvalidInput(f"{what}: a tensor of {elements} numbers is too large")
    return tuple(dims)


def _tolerances(data: Any, what: str) -> dict[str, Tolerance]:  # noqa: ANN401  # JSON
    if not isinstance(data, dict) or not set(data) <= set(DTYPES):
        raise InvalidInput(f"{what}: tolerances are given by dtype")
    found = {}
    for dtype, item in data.items():
        strictjson.refuse_unknown(item, {"atol", "rtol"}, what=what)
        atol, rtol = (_number(item.get(name, TOLERANCE), what) for name in ("atol", "rtol"))
        found[dtype] = Tolerance(atol, rtol)
    return found


def _number(value: Any, what: str) -> float:  # noqa: ANN401  # JSON
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise InvalidInput(f"{what}: expected a number that is not negative")
    return float(value)


def _matching(pattern: re.Pattern[str], text: Any, what: str) -> str:  # noqa: ANN401  # JSON
    if not isinstance(text, str) or pattern.fullmatch(text) is None:
        raise InvalidInput(f"{what}: {text!r} is not a name that can stand here")
    return text
