"""Byte ranges of RFC 9110 section 14, with bounds on how much work one request can ask for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

MAX_RANGES: Final = 16  # in one request; more are answered with the whole file
_RANGES: Final = re.compile(r"bytes=([0-9,\- \t]{1,512})")
_RANGE: Final = re.compile(r"(\d{0,18})-(\d{0,18})")


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes from `start` up to, not including, `end`."""

    start: int
    end: int

    @property
    def size(self) -> int:
        """How many bytes."""
        return self.end - self.start


class Unsatisfiable:
    """None of the ranges lies within the file: 416."""


def parse_ranges(
    header: str | None, size: int, most: int = MAX_RANGES
) -> tuple[Span, ...] | type[Unsatisfiable] | None:
    """Return the spans of a file of `size` bytes to send, None for all of it, or Unsatisfiable.

    Overlapping and adjacent ranges become one, so that no byte is sent twice. A header that is
    malformed, of another unit, or asks for more than `most` ranges counts as absent (14.2 allows
    that).
    """
    found = _RANGES.fullmatch(header) if header else None
    if found is None:
        return None
    parts = [part.strip() for part in found[1].split(",")]
    if len(parts) > most:
        return None
    spans: list[Span] = []
    for part in parts:
        if not part:
            continue  # empty list elements are allowed (5.6.1.2)
        one = _RANGE.fullmatch(part)
        if (
            one is None
            or not (one[1] or one[2])
            or (one[1] and one[2] and int(one[1]) > int(one[2]))
        ):
            return None
        if one[1]:
            start, end = int(one[1]), min(int(one[2]) + 1, size) if one[2] else size
        else:
            start, end = max(0, size - int(one[2])), size
        if start < end:
            spans.append(Span(start, end))
    return _merged(spans) if spans else Unsatisfiable


def _merged(spans: list[Span]) -> tuple[Span, ...]:
    merged: list[Span] = []
    for span in sorted(spans, key=lambda item: item.start):
        if merged and span.start <= merged[-1].end:
            merged[-1] = Span(merged[-1].start, max(merged[-1].end, span.end))
        else:
            merged.append(span)
    return tuple(merged)
