"""The fact schema as types that the engine checks expressions against.

Each record becomes a message type, so that a name that is not in the schema is refused when a
policy is read. Values are never messages: absent fields of a message have defaults, and a default
`false` would let a missing fact pass.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any, Final

from cel_expr_python import cel  # type: ignore[import-untyped]  # it ships no types
from google.protobuf import descriptor_pb2, descriptor_pool  # type: ignore[import-untyped]  # no types

from kgate_policy.facts.schema import RECORDS, VARIABLES

_PACKAGE: Final = "kgate.facts.v1"
_LIST: Final = re.compile(r"list<(\w+)>")
_MAP: Final = re.compile(r"map<string, (\w+)>")
_RECORDS: Final = frozenset(record.name for record in RECORDS)
_FieldProto: Final = descriptor_pb2.FieldDescriptorProto
_SCALARS: Final = {
    "string": _FieldProto.TYPE_STRING,
    "int": _FieldProto.TYPE_INT64,
    "bool": _FieldProto.TYPE_BOOL,
}
_PLAIN: Final = {
    "string": cel.Type.STRING,
    "int": cel.Type.INT,
    "bool": cel.Type.BOOL,
    "timestamp": cel.Type.TIMESTAMP,
    "dyn": cel.Type.DYN,
}


@cache
def descriptors() -> Any:  # noqa: ANN401  # a pool made at run time
    """Return a descriptor pool that holds every record of the schema."""
    file = descriptor_pb2.FileDescriptorProto(
        name="kgate_facts.proto", package=_PACKAGE, syntax="proto3"
    )
    for record in RECORDS:
        message = file.message_type.add(name=record.name)
        for number, field in enumerate(record.fields, start=1):
            made = message.field.add(name=field.name, number=number)
            made.label = _FieldProto.LABEL_OPTIONAL
            inner = field.type
            if found := _LIST.fullmatch(field.type):
                made.label, inner = _FieldProto.LABEL_REPEATED, found[1]
            if found := _MAP.fullmatch(field.type):
                _add_map(message, made, found[1])
            else:
                _set_type(made, inner)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool


def _set_type(made: Any, kind: str) -> None:  # noqa: ANN401
    if kind in _RECORDS:
        made.type = _FieldProto.TYPE_MESSAGE
        made.type_name = f".{_PACKAGE}.{kind}"
    else:
        made.type = _SCALARS[kind]


def _add_map(message: Any, made: Any, kind: str) -> None:  # noqa: ANN401
    name = f"{made.name[0].upper()}{made.name[1:]}Entry"
    entry = message.nested_type.add(name=name)
    entry.options.map_entry = True
    for number, (field, inner) in enumerate((("key", "string"), ("value", kind)), start=1):
        part = entry.field.add(name=field, number=number, label=_FieldProto.LABEL_OPTIONAL)
        _set_type(part, inner)
    made.label = _FieldProto.LABEL_REPEATED
    made.type = _FieldProto.TYPE_MESSAGE
    made.type_name = f".{_PACKAGE}.{message.name}.{name}"


def checked_variables() -> dict[str, Any]:
    """Return the variables with the types that expressions are checked against."""
    return {field.name: _checked(field.type) for field in VARIABLES}


def _checked(kind: str) -> Any:  # noqa: ANN401  # the engine ships no usable types
    if found := _LIST.fullmatch(kind):
        return cel.Type.List(_checked(found[1]))
    if kind in _RECORDS:
        return cel.Type(f"{_PACKAGE}.{kind}")
    return _PLAIN[kind]


def running_variables() -> dict[str, Any]:
    """Return the variables with the types of their values: records are maps."""
    record = cel.Type.Map(cel.Type.STRING, cel.Type.DYN)
    types: dict[str, Any] = {}
    for field in VARIABLES:
        if field.type in _RECORDS:
            types[field.name] = record
        elif _LIST.fullmatch(field.type):
            types[field.name] = cel.Type.List(record)
        else:
            types[field.name] = _PLAIN[field.type]
    return types
