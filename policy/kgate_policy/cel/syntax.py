"""Looks at a compiled expression's tree: how deeply it loops, what it calls, what it asks for.

The engine hands out the tree as a serialized `cel.expr.CheckedExpr` message; only the fields that
are needed here are declared (github.com/google/cel-spec, proto/cel/expr). Nothing is evaluated.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, message_factory  # type: ignore[import-untyped]  # no types

if TYPE_CHECKING:
    from collections.abc import Iterator

_FieldProto: Final = descriptor_pb2.FieldDescriptorProto
_PACKAGE: Final = "kgate.celtree"
# Message -> field -> (number, type, repeated). A type that is a name refers to a message.
_MESSAGES: Final[dict[str, dict[str, tuple[int, str, bool]]]] = {
    "CheckedExpr": {"expr": (4, "Expr", False)},
    "Constant": {"bool_value": (2, "bool", False), "string_value": (6, "string", False)},
    "Expr": {
        "const_expr": (3, "Constant", False),
        "ident_expr": (4, "Ident", False),
        "select_expr": (5, "Select", False),
        "call_expr": (6, "Call", False),
        "list_expr": (7, "CreateList", False),
        "struct_expr": (8, "CreateStruct", False),
        "comprehension_expr": (9, "Comprehension", False),
    },
    "Ident": {"name": (1, "string", False)},
    "Select": {
        "operand": (1, "Expr", False),
        "field": (2, "string", False),
        "test_only": (3, "bool", False),
    },
    "Call": {
        "target": (1, "Expr", False),
        "function": (2, "string", False),
        "args": (3, "Expr", True),
    },
    "CreateList": {"elements": (1, "Expr", True)},
    "CreateStruct": {"entries": (2, "Entry", True)},
    "Entry": {"map_key": (3, "Expr", False), "value": (4, "Expr", False)},
    "Comprehension": {
        "iter_var": (1, "string", False),
        "iter_range": (2, "Expr", False),
        "accu_var": (3, "string", False),
        "accu_init": (4, "Expr", False),
        "loop_condition": (5, "Expr", False),
        "loop_step": (6, "Expr", False),
        "result": (7, "Expr", False),
    },
}


@dataclass(frozen=True, slots=True)
class Shape:
    """What an expression's tree shows."""

    loops: int
    """Comprehensions inside each other."""
    binds: int
    """`cel.bind` inside each other: each can double a text."""
    calls: frozenset[str]
    """Names of the functions and operators used."""
    paths: frozenset[str]
    """Facts that are asked for, such as `kernel.scan.worst`."""
    universal: frozenset[str]
    """Lists that an `all()` runs over."""
    sized: frozenset[str]
    """Lists whose size is asked for."""


@cache
def _checked_expression() -> Any:  # noqa: ANN401  # a message class made at run time
    file = descriptor_pb2.FileDescriptorProto(
        name="kgate_celtree.proto", package=_PACKAGE, syntax="proto3"
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind, repeated) in fields.items():
            made = message.field.add(name=field, number=number)
            made.label = _FieldProto.LABEL_REPEATED if repeated else _FieldProto.LABEL_OPTIONAL
            if kind in _MESSAGES:
                made.type = _FieldProto.TYPE_MESSAGE
                made.type_name = f".{_PACKAGE}.{kind}"
            else:
                made.type = _FieldProto.TYPE_BOOL if kind == "bool" else _FieldProto.TYPE_STRING
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.CheckedExpr"))


def read_shape(serialized: bytes) -> Shape:
    """Return the shape of an expression that the engine compiled."""
    wrapped = any_pb2.Any.FromString(serialized)
    tree = _checked_expression().FromString(wrapped.value).expr
    nodes = list(_walk(tree, 0, 0))
    every = [node for node, _, _ in nodes]
    calls = [node.call_expr for node in every if node.HasField("call_expr")]
    loops = [node.comprehension_expr for node in every if node.HasField("comprehension_expr")]
    return Shape(
        loops=max(depth for _, depth, _ in nodes),
        binds=max(depth for _, _, depth in nodes),
        calls=frozenset(call.function for call in calls),
        paths=frozenset(path for node in every if (path := _path(node))),
        universal=frozenset(
            _path(loop.iter_range)
            for loop in loops
            if loop.accu_init.const_expr.bool_value and _path(loop.iter_range)
        ),
        sized=frozenset(
            _path(call.target if call.HasField("target") else call.args[0])
            for call in calls
            if call.function == "size" and (call.HasField("target") or call.args)
        ),
    )


def _walk(node: Any, loops: int, binds: int) -> Iterator[tuple[Any, int, int]]:  # noqa: ANN401
    # The engine's parser refuses trees that are deep; recursion here is bounded by it.
    if not node.HasField("comprehension_expr"):
        yield node, loops, binds
        for child in _children(node):
            yield from _walk(child, loops, binds)
        return
    loop = node.comprehension_expr
    # What is looped over, or bound, is evaluated once, outside the loop.
    yield from _walk(loop.iter_range, loops, binds)
    yield from _walk(loop.accu_init, loops, binds)
    # cel.bind() is written as a loop over an empty list.
    if loop.iter_range.HasField("list_expr") and not loop.iter_range.list_expr.elements:
        binds += 1
    else:
        loops += 1
    yield node, loops, binds
    for child in (loop.loop_condition, loop.loop_step, loop.result):
        yield from _walk(child, loops, binds)


def _children(node: Any) -> Iterator[Any]:  # noqa: ANN401
    match _kind(node):
        case "select_expr":
            yield node.select_expr.operand
        case "call_expr":
            if node.call_expr.HasField("target"):
                yield node.call_expr.target
            yield from node.call_expr.args
        case "list_expr":
            yield from node.list_expr.elements
        case "struct_expr":
            for entry in node.struct_expr.entries:
                yield from (part for part in (entry.map_key, entry.value))
        case _:
            pass


def _kind(node: Any) -> str:  # noqa: ANN401
    return next((name for name in _MESSAGES["Expr"] if node.HasField(name)), "")


def _path(node: Any) -> str:  # noqa: ANN401
    match _kind(node):
        case "ident_expr":
            name = str(node.ident_expr.name)
            return "" if name.startswith("@") else name
        case "select_expr":
            inner = _path(node.select_expr.operand)
            return f"{inner}.{node.select_expr.field}" if inner else ""
        case "call_expr" if node.call_expr.function == "_?._":
            # The optional form a.?b asks for the same fact.
            inner, name = _path(node.call_expr.args[0]), node.call_expr.args[-1]
            field = str(name.const_expr.string_value)
            return f"{inner}.{field}" if inner and field else ""
        case _:
            return ""
