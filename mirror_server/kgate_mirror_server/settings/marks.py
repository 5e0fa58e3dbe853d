"""YAML (and JSON, its subset) read together with the line on which every field stands.

People mistype configuration; the error must name the line. Duplicate keys are refused, aliases and
tags beyond plain data too. What the fields mean is not known here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import yaml

from kgate_core.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Path = tuple[str | int, ...]
MAX_BYTES: Final = 16 * 1024**2  # bytes; a lock of 20,000 variants has about 4 MB
MAX_DEPTH: Final = 32  # nested containers


@dataclass(frozen=True, slots=True)
class Marked:
    """Plain data with the line (from 1) of every path in it."""

    value: Any
    lines: Mapping[Path, int]

    def line(self, path: Sequence[str | int]) -> int:
        """Return the line of a field, or of the nearest field around it that exists."""
        wanted = tuple(path)
        while wanted and wanted not in self.lines:
            wanted = wanted[:-1]
        return self.lines.get(wanted, 1)


def read(data: bytes, *, name: str) -> Marked:
    """Parse one document; raises InvalidInput with the file's name and the line."""
    if len(data) > MAX_BYTES:
        raise InvalidInput(f"{name}: {len(data)} bytes are more than the {MAX_BYTES} allowed")
    try:
        # The C scanner is ten times faster; both build the same nodes.
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(data.decode("utf-8"))
        try:
            _refuse_aliases(data, name)
            node = loader.get_single_node()
            if node is None:
                raise InvalidInput(f"{name}: the file is empty")
            lines: dict[Path, int] = {}
            _walk(node, (), lines, name)
            return Marked(loader.construct_document(node), lines)
        finally:
            loader.dispose()
    except UnicodeDecodeError as exc:
        raise InvalidInput(f"{name}: not UTF-8 ({exc})") from exc
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise InvalidInput(f"{name}{where}: {exc.problem or 'not YAML'}") from exc
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        raise InvalidInput(f"{name}: not YAML ({exc})") from exc


def _refuse_aliases(data: bytes, name: str) -> None:
    # Aliases let ten lines stand for a million nodes; nobody needs them in these files.
    for event in yaml.parse(data, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        if isinstance(event, yaml.AliasEvent):
            line = event.start_mark.line + 1 if event.start_mark else 1
            raise InvalidInput(f"{name}, line {line}: the alias *{event.anchor} is not allowed")


def _walk(node: yaml.Node, path: Path, lines: dict[Path, int], name: str) -> None:
    line = node.start_mark.line + 1
    if path in lines or len(path) > MAX_DEPTH:
        raise InvalidInput(f"{name}, line {line}: nested deeper than {MAX_DEPTH}")
    lines[path] = line
    match node:
        case yaml.MappingNode():
            for key, value in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    raise InvalidInput(f"{name}, line {line}: a key must be a word")
                inner = (*path, key.value)
                if inner in lines:
                    raise InvalidInput(
                        f"{name}, line {key.start_mark.line + 1}: {key.value!r} stands twice"
                    )
                _walk(value, inner, lines, name)
                lines[inner] = key.start_mark.line + 1
        case yaml.SequenceNode():
            for index, item in enumerate(node.value):
                _walk(item, (*path, index), lines, name)
        case _:
            pass
