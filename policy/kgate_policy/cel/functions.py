"""The functions that Kubernetes people expect in CEL, as one table.

The engine cannot hold values of our own types. So each function is declared twice: with opaque
types in the environment that checks (there `quantity('1')` and `'1'` cannot be mixed up), and
over tagged texts in the environment that runs. What the functions do is in `kubernetes`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cel_expr_python import cel  # type: ignore[import-untyped]  # it ships no types

from kgate_policy.cel import kubernetes as k8s

if TYPE_CHECKING:
    from collections.abc import Callable

_MARK: Final = "\ue000"  # private use: no fact holds it by accident

# Letters of the signatures below.
_OPAQUE: Final = {
    "Q": "kubernetes.Quantity",
    "V": "kubernetes.Semver",
    "I": "net.IP",
    "C": "net.CIDR",
    "U": "kubernetes.URL",
}


@dataclass(frozen=True, slots=True)
class _Function:
    """One overload; `takes` and `gives` are letters: Q V I C U, s text, i int, b bool, m map."""

    name: str
    takes: str
    gives: str
    call: Callable[..., Any]
    member: bool = True


def _valid(read: Callable[[str], str]) -> Callable[[str], bool]:
    def check(text: str) -> bool:
        try:
            read(text)
        except ValueError:
            return False
        return True

    return check


def _readers() -> list[_Function]:
    table: list[_Function] = []
    for kind, name, test, read in (
        ("Q", "quantity", "isQuantity", k8s.quantity),
        ("V", "semver", "isSemver", k8s.semver),
        ("I", "ip", "isIP", k8s.ip),
        ("C", "cidr", "isCIDR", k8s.cidr),
        ("U", "url", "isURL", k8s.url),
    ):
        table.append(_Function(name, "s", kind, read, member=False))
        table.append(_Function(test, "s", "b", _valid(read), member=False))
    return table


def _comparisons() -> list[_Function]:
    table: list[_Function] = []
    for kind, compare in (("Q", k8s.compare), ("V", k8s.semver_compare)):
        pair = kind + kind
        table += [
            _Function("compareTo", pair, "i", compare),
            _Function("isGreaterThan", pair, "b", lambda a, b, c=compare: c(a, b) > 0),
            _Function("isLessThan", pair, "b", lambda a, b, c=compare: c(a, b) < 0),
        ]
    return table


_TABLE: Final = (
    *_readers(),
    *_comparisons(),
    _Function("add", "QQ", "Q", k8s.add),
    _Function("add", "Qi", "Q", lambda a, b: k8s.add(a, str(b))),
    _Function("sub", "QQ", "Q", lambda a, b: k8s.add(a, b, -1)),
    _Function("sub", "Qi", "Q", lambda a, b: k8s.add(a, str(b), -1)),
    _Function("sign", "Q", "i", lambda a: k8s.compare(a, "0")),
    _Function("isInteger", "Q", "b", lambda a: "." not in a),
    _Function("asInteger", "Q", "i", k8s.as_integer),
    _Function("major", "V", "i", lambda a: k8s.semver_part(a, 0)),
    _Function("minor", "V", "i", lambda a: k8s.semver_part(a, 1)),
    _Function("patch", "V", "i", lambda a: k8s.semver_part(a, 2)),
    _Function("family", "I", "i", lambda a: k8s.address(a).version),
    _Function("isLoopback", "I", "b", lambda a: k8s.address(a).is_loopback),
    _Function("isUnspecified", "I", "b", lambda a: k8s.address(a).is_unspecified),
    _Function("containsIP", "CI", "b", k8s.contains_ip),
    _Function("containsIP", "Cs", "b", k8s.contains_ip),
    _Function("containsCIDR", "CC", "b", k8s.contains_cidr),
    _Function("containsCIDR", "Cs", "b", k8s.contains_cidr),
    _Function("ip", "C", "I", lambda a: a.partition("/")[0]),
    _Function("masked", "C", "C", lambda a: str(k8s.network(a))),
    _Function("prefixLength", "C", "i", lambda a: k8s.network(a).prefixlen),
    _Function("getScheme", "U", "s", lambda a: k8s.url_part(a, "scheme")),
    _Function("getHost", "U", "s", lambda a: k8s.url_part(a, "host")),
    _Function("getHostname", "U", "s", lambda a: k8s.url_part(a, "hostname")),
    _Function("getPort", "U", "s", lambda a: k8s.url_part(a, "port")),
    _Function("getEscapedPath", "U", "s", lambda a: k8s.url_part(a, "path")),
    _Function("getQuery", "U", "m", k8s.url_query),
)

NAMES: Final = tuple(sorted({function.name for function in _TABLE}))


def checked_functions() -> list[Any]:
    """Return declarations with opaque types, for the environment that only checks."""
    grouped: dict[str, list[Any]] = {}
    for number, function in enumerate(_TABLE):
        grouped.setdefault(function.name, []).append(
            cel.Overload(
                f"kgate_{number}",
                return_type=_type(function.gives, opaque=True),
                parameters=[_type(letter, opaque=True) for letter in function.takes],
                is_member=function.member,
                impl=function.call,
            )
        )
    return [cel.FunctionDecl(name, overloads) for name, overloads in grouped.items()]


def running_functions() -> list[Any]:
    """Return declarations over tagged texts, for the environment that runs."""
    groups: dict[tuple[str, bool, str], list[_Function]] = {}
    for function in _TABLE:
        plain = "".join("s" if letter in _OPAQUE else letter for letter in function.takes)
        groups.setdefault((function.name, function.member, plain), []).append(function)
    grouped: dict[str, list[Any]] = {}
    for number, ((name, member, plain), functions) in enumerate(groups.items()):
        kinds = {"s" if function.gives in _OPAQUE else function.gives for function in functions}
        grouped.setdefault(name, []).append(
            cel.Overload(
                f"kgate_run_{number}",
                return_type=_type(kinds.pop(), opaque=False),
                parameters=[_type(letter, opaque=False) for letter in plain],
                is_member=member,
                impl=_dispatch(functions),
            )
        )
    return [cel.FunctionDecl(name, overloads) for name, overloads in grouped.items()]


def _type(letter: str, *, opaque: bool) -> Any:  # noqa: ANN401  # the engine ships no usable types
    if letter in _OPAQUE:
        return cel.Type.AbstractType(_OPAQUE[letter]) if opaque else cel.Type.STRING
    match letter:
        case "i":
            return cel.Type.INT
        case "b":
            return cel.Type.BOOL
        case "m":
            return cel.Type.Map(cel.Type.STRING, cel.Type.List(cel.Type.STRING))
        case _:
            return cel.Type.STRING


def _dispatch(functions: list[_Function]) -> Callable[..., Any]:
    """Return a function that picks the overload by the tags of its arguments."""

    def call(*arguments: Any) -> Any:  # noqa: ANN401  # whatever the expression passes
        kinds = "".join(_kind(argument) for argument in arguments)
        for function in functions:
            if function.takes == kinds:
                result = function.call(*(_bare(argument) for argument in arguments))
                return f"{_MARK}{function.gives}{result}" if function.gives in _OPAQUE else result
        raise ValueError("no such overload")

    return call


def _kind(value: object) -> str:
    if isinstance(value, str):
        return value[1] if value.startswith(_MARK) and value[1:2] in _OPAQUE else "s"
    return "i"


def _bare(value: Any) -> Any:  # noqa: ANN401  # text or number
    return value[2:] if _kind(value) in _OPAQUE else value
