"""JSON read strictly and written canonically.

Reading refuses what parsers are known to disagree about: duplicate keys, NaN and infinities,
floats (unless asked for), invalid UTF-8, lone surrogates, depth and size beyond a limit.
Writing gives one byte sequence per value: sorted keys, no spaces, UTF-8, integers only. This
equals RFC 8785 (JCS), whose key order by UTF-16 units differs only beyond the basic plane,
which `dumps` refuses in keys.

It does not check shapes: see the `take_*` readers below for that.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from typing import Any, Final, NoReturn, TypeVar

from kgate_core.errors import InvalidInput

JsonValue = Any  # JSON has no static shape: `take` gives it one
T = TypeVar("T")

MAX_BYTES: Final = 8 * 1024 * 1024  # bytes; a bundle for 1,000 files stays under 1 MB
MAX_DEPTH: Final = 64  # nested containers; signed documents need fewer than ten
_MAX_INT: Final = 2**53 - 1  # RFC 8259 section 6: beyond it, readers lose digits
_MAX_BMP: Final = 0xFFFF
_LONGEST_INT: Final = len(str(_MAX_INT)) + 1  # characters, with a sign
# The closing quote is optional so that an unterminated string is passed over once, not once for
# each quote in it; the possessive repeats keep no way back, which would cost memory.
_STRING: Final = re.compile(r'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_BRACKET: Final = re.compile(r"[\[\]{}]")


def loads(data: bytes, *, what: str, max_bytes: int = MAX_BYTES, floats: bool = False) -> JsonValue:
    """Parse one JSON document; `what` names it in errors. Raises InvalidInput."""
    if len(data) > max_bytes:
        raise InvalidInput(f"{what}: {len(data)} bytes are more than the {max_bytes} allowed")
    try:
        text = data.decode("utf-8")
        _check_depth(text)
        value = json.loads(
            text,
            object_pairs_hook=_unique_keys,
            parse_constant=_refuse_constant,
            parse_int=_integer,
            parse_float=_finite_float if floats else _refuse_float,
        )
        if "\\u" in text:
            _check_surrogates(value)
    except InvalidInput as exc:
        raise InvalidInput(f"{what}: {exc}") from None
    except ValueError as exc:
        raise InvalidInput(f"{what}: not JSON ({exc})") from exc
    return value


def dumps(value: JsonValue) -> bytes:
    """Write canonical bytes; raises InvalidInput for floats, odd keys and lone surrogates."""
    _check_writable(value)
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as exc:
        raise InvalidInput(f"text with a lone surrogate cannot be written: {exc}") from exc


def take(data: JsonValue, key: str, kind: type[T], *, what: str) -> T:
    """Return `data[key]` if it is a `kind`; raises InvalidInput naming `what` and the key."""
    if not isinstance(data, dict):
        raise InvalidInput(f"{what}: expected an object, found {type(data).__name__}")
    if key not in data:
        raise InvalidInput(f"{what}: the field {key!r} is missing")
    value = data[key]
    # bool is an int in Python, but never one in a document.
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise InvalidInput(
            f"{what}: the field {key!r} should be {kind.__name__}, found {type(value).__name__}"
        )
    return value


def take_strings(data: JsonValue, key: str, *, what: str) -> tuple[str, ...]:
    """Return `data[key]` as a tuple of strings; raises InvalidInput."""
    values = take(data, key, list, what=what)
    if not all(isinstance(value, str) for value in values):
        raise InvalidInput(f"{what}: the field {key!r} should be a list of strings")
    return tuple(values)


def refuse_unknown(data: JsonValue, known: set[str], *, what: str) -> None:
    """Raise InvalidInput unless this is an object all of whose keys are in `known`."""
    if not isinstance(data, dict):
        raise InvalidInput(f"{what}: expected an object, found {type(data).__name__}")
    unknown = sorted(set(data) - known)
    if unknown:
        raise InvalidInput(f"{what}: unknown field {unknown[0]!r}; known are {sorted(known)}")


def _unique_keys(items: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    found = dict(items)
    if len(found) != len(items):
        twice = Counter(key for key, _ in items).most_common(1)[0][0]
        raise InvalidInput(f"the key {twice!r} stands twice in one object")
    return found


def _refuse_constant(token: str) -> NoReturn:
    raise InvalidInput(f"{token} is not JSON")


def _refuse_float(token: str) -> NoReturn:
    raise InvalidInput(f"the number {token[:32]} is not an integer")


def _finite_float(token: str) -> float:
    value = float(token)
    if math.isinf(value):
        raise InvalidInput(f"the number {token[:32]} is beyond a double")
    return value


def _integer(token: str) -> int:
    # The length first: converting a million digits is quadratic.
    if len(token) > _LONGEST_INT or abs(int(token)) > _MAX_INT:
        raise InvalidInput(f"the integer {token[:32]} is beyond 2^53-1")
    return int(token)


def _check_depth(text: str) -> None:
    # Counted before the parser recurses: its own limit is the interpreter's, not ours.
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return
    depth = 0
    for bracket in _BRACKET.findall(_STRING.sub("", text)):
        if bracket in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise InvalidInput(f"nested deeper than {MAX_DEPTH}")
        else:
            depth -= 1


def _check_surrogates(value: JsonValue) -> None:
    match value:
        case str():
            try:
                value.encode("utf-8")
            except UnicodeEncodeError:
                raise InvalidInput("a string holds a lone surrogate") from None
        case list():
            for item in value:
                _check_surrogates(item)
        case dict():
            for key, item in value.items():
                _check_surrogates(key)
                _check_surrogates(item)
        case _:
            pass


def _check_writable(value: JsonValue) -> None:
    match value:
        case None | bool() | str():
            pass
        case int():
            if abs(value) > _MAX_INT:
                raise InvalidInput(f"the integer {value} is beyond 2^53-1")
        case list() | tuple():
            for item in value:
                _check_writable(item)
        case dict():
            for key, item in value.items():
                if not isinstance(key, str) or not (key.isascii() or ord(max(key)) <= _MAX_BMP):
                    raise InvalidInput(f"not a key that can be written canonically: {key!r}")
                _check_writable(item)
        case _:
            raise InvalidInput(f"{type(value).__name__} cannot be written canonically")
