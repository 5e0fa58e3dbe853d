"""Caps on facts, checked before an engine sees them.

The engine is written in C++ and recurses: facts nested ten thousand deep end the process. So
depth, sizes and counts are checked here, without recursion.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from kgate_core.errors import InvalidInput

MAX_DEPTH: Final = 64  # nested containers
MAX_LIST: Final = 1_000  # items in one list or map: quadratic expressions stay below a second
MAX_STRING: Final = 4_096  # characters
MAX_TOTAL: Final = 256 * 1024  # characters of all texts, with eight for every other value
_SCALAR: Final = 8
_MAX_INT: Final = 2**63


def check_facts(value: object, *, what: str) -> None:
    """Raise InvalidInput if facts are beyond a limit or hold what no JSON document holds."""
    total = 0
    waiting: list[tuple[object, int]] = [(value, 0)]
    while waiting:
        item, depth = waiting.pop()
        if not isinstance(item, dict | list):
            total += _scalar(item, what)
        else:
            if depth >= MAX_DEPTH:
                raise InvalidInput(f"{what}: nested deeper than {MAX_DEPTH}")
            if len(item) > MAX_LIST:
                raise InvalidInput(f"{what}: {len(item)} items in one place, at most {MAX_LIST}")
            total += _SCALAR + (_names(item, what) if isinstance(item, dict) else 0)
            inner = item.values() if isinstance(item, dict) else item
            waiting.extend((child, depth + 1) for child in inner)
        if total > MAX_TOTAL:
            raise InvalidInput(f"{what}: more than {MAX_TOTAL} characters of facts")


def _scalar(item: object, what: str) -> int:
    match item:
        case str() if len(item) > MAX_STRING:
            raise InvalidInput(f"{what}: a text of {len(item)} characters, at most {MAX_STRING}")
        case str():
            return len(item)
        case int() if abs(item) >= _MAX_INT:
            raise InvalidInput(f"{what}: a number does not fit in 64 bits")
        case None | bool() | int() | float() | datetime():
            return _SCALAR
        case _:
            raise InvalidInput(f"{what}: a {type(item).__name__} is not a fact")


def _names(item: dict[object, object], what: str) -> int:
    length = 0
    for key in item:
        if not isinstance(key, str) or len(key) > MAX_STRING:
            raise InvalidInput(f"{what}: a name that is no text of normal length")
        length += len(key)
    return length
