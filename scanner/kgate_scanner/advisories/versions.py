"""Versions as numbers, and ranges of them.

Only dotted numbers are compared. Anything else (pre-releases, words, wildcards) gives no order,
and the answer is then `UNKNOWN`: a wrong no would hide a vulnerability.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final

Version = tuple[int, ...]
MAX_PARTS: Final = 6  # numbers in one version
MAX_TEXT: Final = 64  # characters of one version
# NVIDIA writes 12.9 Update 1, 12.9U1 and 12.9.1 for the same release.
_VERSION: Final = re.compile(
    r"[vV]?(\d{1,9}(?:\.\d{1,9}){0,5})(?:\s*(?:[Uu]pdate\s*|[Uu])(\d{1,4}))?(?:\+[a-z0-9.]+)?"
)
_UPDATE_PLACE: Final = 2  # an update counts as the third number


class Within(Enum):
    """Whether a version lies in a range."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


def parse_version(text: str) -> Version | None:
    """Return the numbers of a version, None if it is not made of numbers only."""
    found = _VERSION.fullmatch(text.strip()) if len(text) <= MAX_TEXT else None
    if found is None:
        return None
    parts = [int(part) for part in found[1].split(".")]
    if found[2] is not None:
        if len(parts) > _UPDATE_PLACE:
            return None
        parts += [0] * (_UPDATE_PLACE - len(parts)) + [int(found[2])]
    return tuple(parts)


@dataclass(frozen=True, slots=True)
class Range:
    """Versions from `introduced` (included) to `fixed` (excluded) or `last` (included)."""

    introduced: Version | None = None
    """None means from the first one on."""
    fixed: Version | None = None
    last: Version | None = None

    def holds(self, version: Version, *, coarse: bool = False) -> Within:
        """Say whether a version lies in it.

        A `coarse` version names a release without its updates: 12.9 may be 12.9.1.
        """
        answers = []
        if self.introduced is not None:
            answers.append(_not_below(version, self.introduced, coarse=coarse))
        if self.fixed is not None:
            answers.append(_opposite(_not_below(version, self.fixed, coarse=coarse)))
        if self.last is not None:
            answers.append(_not_above(version, self.last, coarse=coarse))
        if Within.NO in answers:
            return Within.NO
        return Within.UNKNOWN if Within.UNKNOWN in answers else Within.YES


def _not_below(version: Version, bound: Version, *, coarse: bool) -> Within:
    if coarse and _is_update_of(bound, version):
        return Within.UNKNOWN  # which update it is cannot be told
    return Within.YES if _padded(version) >= _padded(bound) else Within.NO


def _not_above(version: Version, bound: Version, *, coarse: bool) -> Within:
    if coarse and _is_update_of(bound, version):
        return Within.UNKNOWN
    return Within.YES if _padded(version) <= _padded(bound) else Within.NO


def _is_update_of(bound: Version, version: Version) -> bool:
    return bound[: len(version)] == version and any(bound[len(version) :])


def _padded(version: Version) -> Version:
    return version + (0,) * (MAX_PARTS + 1 - len(version))


def _opposite(answer: Within) -> Within:
    return {Within.YES: Within.NO, Within.NO: Within.YES}.get(answer, answer)
