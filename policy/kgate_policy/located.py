"""YAML read into plain values that remember their line.

Only what configuration needs: mappings with text keys, lists, text, integers, true and false. No
tags, no anchors (a few lines of aliases can grow to gigabytes), no duplicate keys, no depth or
size beyond the limits. Every refusal names source, line and field.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

import yaml

from kgate_core.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
E = TypeVar("E", bound=Enum)

MAX_BYTES: Final = 256 * 1024  # bytes of one file
MAX_DEPTH: Final = 24  # nested containers; Kubernetes manifests stay below twenty
_CONTAINERS: Final = frozenset({"tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"})


@dataclass(frozen=True, slots=True)
class Located:
    """One value of a document, with where it stands."""

    value: Any  # str, int, bool, None, list[Located] or dict[str, Located]: YAML has no shape
    source: str
    line: int
    """Line number from 1."""
    field: str
    """Path of the value, such as `rules.no-bytecode`; empty for a whole document."""

    def fail(self, message: str, *, hint: str = "") -> NoReturn:
        """Raise InvalidInput that names source, line and field."""
        where = f"{self.source}, line {self.line}"
        raise InvalidInput(f"{where}: {self.field or 'document'}: {message}", hint=hint)

    def mapping(self, known: Iterable[str] | None = None) -> Mapping[str, Located]:
        """Return the mapping; with `known`, refuse every other field."""
        if not isinstance(self.value, dict):
            self.fail(f"expected fields, found {_kind(self.value)}")
        if known is not None:
            allowed = sorted(known)
            for key, item in self.value.items():
                if key not in allowed:
                    item.fail("there is no such field", hint=f"known are {', '.join(allowed)}")
        return self.value

    def items(self) -> list[Located]:
        """Return the list."""
        if not isinstance(self.value, list):
            self.fail(f"expected a list, found {_kind(self.value)}")
        return self.value

    def text(self) -> str:
        """Return the text, which may not be empty."""
        if not isinstance(self.value, str) or not self.value.strip():
            self.fail(f"expected text, found {_kind(self.value)}")
        return self.value

    def texts(self) -> tuple[str, ...]:
        """Return a list of texts."""
        return tuple(item.text() for item in self.items())

    def flag(self) -> bool:
        """Return true or false."""
        if not isinstance(self.value, bool):
            self.fail(f"expected true or false, found {_kind(self.value)}")
        return self.value

    def choice(self, kind: type[E]) -> E:
        """Return the member of an enumeration that the text names."""
        try:
            return kind(self.text())
        except ValueError:
            words = ", ".join(str(member.value) for member in kind)
            self.fail(f"expected one of {words}, found {self.value!r}")

    def required(self, key: str) -> Located:
        """Return a field that must be there."""
        found: Located | None = self.mapping().get(key)
        if found is None:
            self.fail(f"the field {key!r} is missing")
        return found

    def plain(self) -> Any:  # noqa: ANN401  # the document's own shape
        """Return the value without its lines."""
        match self.value:
            case dict():
                return {key: item.plain() for key, item in self.value.items()}
            case list():
                return [item.plain() for item in self.value]
            case _:
                return self.value


def read_documents(
    data: bytes, *, source: str, max_depth: int = MAX_DEPTH, max_bytes: int = MAX_BYTES
) -> tuple[Located, ...]:
    """Read every document of a YAML file; empty documents are left out. Raises InvalidInput."""
    if len(data) > max_bytes:
        raise InvalidInput(f"{source}: {len(data)} bytes are more than the {max_bytes} allowed")
    try:
        text = data.decode("utf-8")
        _check_structure(text, source, max_depth)
        nodes = list(yaml.compose_all(text, Loader=yaml.SafeLoader))
    except yaml.MarkedYAMLError as exc:
        line = "" if exc.problem_mark is None else f", line {exc.problem_mark.line + 1}"
        raise InvalidInput(f"{source}{line}: not YAML: {exc.problem or exc.context}") from exc
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        raise InvalidInput(f"{source}: not YAML: {exc}") from exc
    found = (_locate(node, source, "") for node in nodes)
    return tuple(document for document in found if document.value is not None)


def read_document(data: bytes, *, source: str) -> Located:
    """Read a YAML file that holds exactly one document; raises InvalidInput."""
    documents = read_documents(data, source=source)
    if len(documents) != 1:
        raise InvalidInput(f"{source}: expected one document, found {len(documents)}")
    return documents[0]


def _check_structure(text: str, source: str, max_depth: int) -> None:
    # On the event stream, before anything recurses or is expanded.
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = 0 if event.start_mark is None else event.start_mark.line + 1
        match event:
            case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                depth += 1
                if depth > max_depth:
                    raise InvalidInput(f"{source}, line {line}: nested deeper than {max_depth}")
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                depth -= 1
            case yaml.AliasEvent():
                raise InvalidInput(f"{source}, line {line}: anchors and aliases are not read")
            case _:
                pass


def _locate(node: yaml.Node, source: str, field: str) -> Located:
    line = node.start_mark.line + 1
    at = Located(None, source, line, field)
    value: Any
    if not isinstance(node, yaml.ScalarNode) and node.tag not in _CONTAINERS:
        at.fail(f"a value of type {node.tag} is not read")
    match node:
        case yaml.MappingNode():
            value = {}
            for key, item in node.value:
                name = key.value
                if not isinstance(key, yaml.ScalarNode) or not key.tag.endswith(":str"):
                    Located(None, source, key.start_mark.line + 1, field).fail("a key is not text")
                path = f"{field}.{name}" if field else name
                if name in value:
                    Located(None, source, key.start_mark.line + 1, path).fail("stands twice")
                value[name] = _locate(item, source, path)
        case yaml.SequenceNode():
            value = [
                _locate(item, source, f"{field}[{index}]") for index, item in enumerate(node.value)
            ]
        case yaml.ScalarNode():
            value = _scalar(node, at)
        case _:
            at.fail("not a value that configuration can hold")
    return Located(value, source, line, field)


def _scalar(node: yaml.ScalarNode, at: Located) -> str | int | bool | None:
    match node.tag.removeprefix("tag:yaml.org,2002:"):
        case "str":
            return str(node.value)
        case "null":
            return None
        case "bool" if node.value.lower() in {"true", "false"}:
            return bool(node.value.lower() == "true")
        case "bool":
            # YAML 1.1 reads off, on, yes and no as booleans; people write them as words.
            return str(node.value)
        case "int" if node.value.removeprefix("-").isdigit():
            return int(node.value)
        case "timestamp" | "float" | "int":
            # 2026-12-31 and 1.10 are texts to us: a type would lose what was written.
            return str(node.value)
        case _:
            return at.fail(f"a value of type {node.tag} is not read")


def _kind(value: object) -> str:
    match value:
        case None:
            return "nothing"
        case dict():
            return "fields"
        case list():
            return "a list"
        case _:
            return repr(value)
