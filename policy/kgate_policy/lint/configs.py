"""Reads a model's `config.json`: fields that make a client load code (CVE-2026-4372, auto_map)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from kgate_core import strictjson
from kgate_core.errors import InvalidInput
from kgate_policy.lint.findings import LintFinding, found
from kgate_policy.lint.references import attention_kernel

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_BYTES: Final = 8 * 1024**2  # bytes of one config.json
_IMPLEMENTATION: Final = "_implementation"


def lint_config(data: bytes, path: str) -> list[LintFinding]:
    """Return the fields of a model configuration that name code."""
    try:
        document = strictjson.loads(data, what=path, max_bytes=MAX_BYTES, floats=True)
    except InvalidInput as exc:
        return [found(18, path, 1, exc.message)]
    if not isinstance(document, dict):
        return []
    text = data.decode("utf-8")
    findings = []
    for key, value in _fields(document):
        line = _line(text, key)
        if _IMPLEMENTATION in key and isinstance(value, str) and attention_kernel(value):
            findings.append(found(7, path, line, f"{key} names the kernel {value!r}"))
        elif key == "auto_map" and isinstance(value, dict) and value:
            names = ", ".join(sorted(map(str, value)))
            findings.append(found(8, path, line, f"auto_map brings code for {names}"))
    return findings


def _fields(value: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401  # JSON has no static shape
    # Configurations of multi-part models nest; the depth was bounded when reading.
    if isinstance(value, dict):
        for key, item in value.items():
            yield key, item
            yield from _fields(item)
            if _IMPLEMENTATION in key and isinstance(item, dict):
                yield from ((key, inner) for inner in item.values())
    elif isinstance(value, list):
        for item in value:
            yield from _fields(item)


def _line(text: str, key: str) -> int:
    return text.count("\n", 0, max(0, text.find(f'"{key}"'))) + 1
