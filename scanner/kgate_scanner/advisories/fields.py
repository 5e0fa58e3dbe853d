"""Fields of documents from outside: taken if they have the expected type, else as if absent."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from kgate_core.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MAX_ID: Final = 256  # characters of an id


def text(value: object, key: str) -> str:
    """Return a field that is a text, or an empty one."""
    found = mapping(value).get(key)
    return found.strip() if isinstance(found, str) else ""


def mapping(value: object, key: str | None = None) -> Mapping[str, Any]:
    """Return an object, or a field that is one; empty for everything else."""
    if key is not None:
        value = mapping(value).get(key)
    return value if isinstance(value, dict) else {}


def items(value: object, key: str) -> Iterator[Mapping[str, Any]]:
    """Yield the objects of a field that is a list."""
    found = mapping(value).get(key)
    yield from (item for item in (found if isinstance(found, list) else ()) if mapping(item))


def texts(value: object, key: str) -> tuple[str, ...]:
    """Return the texts of a field that is a list."""
    found = mapping(value).get(key)
    values = found if isinstance(found, list) else ()
    return tuple(item.strip() for item in values if isinstance(item, str) and item.strip())


def required(value: object, key: str, *, what: str) -> str:
    """Return a short text that must be there; raises InvalidInput."""
    found = text(value, key)
    if not found or len(found) > MAX_ID or not found.isprintable():
        raise InvalidInput(f"{what}: the field {key!r} should be a short text")
    return found


def date(value: object, key: str, *, what: str) -> datetime:
    """Read an RFC 3339 time of any zone and precision; raises InvalidInput."""
    written = required(value, key, what=what)
    try:
        found = datetime.fromisoformat(written)
    except ValueError as exc:
        raise InvalidInput(f"{what}: {written!r} is not a time") from exc
    if found.tzinfo is None:
        found = found.replace(tzinfo=UTC)
    try:
        return found.astimezone(UTC).replace(microsecond=0)
    except (OverflowError, ValueError) as exc:
        raise InvalidInput(f"{what}: {written!r} is no time that can be used") from exc
