"""The shape of a scanner rule and the register of all of them.

A rule is documentation with an id: what it means, why somebody should care, what to do. Modules
that look at bytes each own a table `RULES` and are named in `TABLES` below; the pages under
docs/rules/ are written from the register. Nothing here looks at bytes, and nothing here decides:
a severity is advice to a policy.
"""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kgate_core.errors import InvalidInput
from kgate_core.evidence import Finding, Severity

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

TABLES: Final = (
    "kgate_scanner.elf",
    "kgate_scanner.rules_caches",
    "kgate_scanner.rules_files",
    "kgate_scanner.rules_host",
    "kgate_scanner.rules_metadata",
    "kgate_scanner.rules_python",
    "kgate_scanner.device.rules",
)
"""Modules that own a table of rules named `RULES`; one line each."""

_ID: Final = re.compile(r"KG-[A-Z]{2,8}-[0-9]{3}")


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing that a scan can find."""

    id: str
    """Stable id such as `KG-DEV-001`; never reused for another meaning."""
    severity: Severity
    """How bad it usually is."""
    title: str
    """Half a line for a list."""
    why: str
    """Why it matters, for somebody who has not met it before."""
    fix: str
    """What the publisher or the operator can do about it."""

    def __post_init__(self) -> None:
        if _ID.fullmatch(self.id) is None:
            raise InvalidInput(f"not a rule id of the form KG-PART-001: {self.id!r}")

    def finding(
        self, path: str, seen: str, *, offset: int | None = None, line: int | None = None
    ) -> Finding:
        """Return what was seen at `path` as a finding of this rule."""
        return Finding(self.id, self.severity, path, seen, offset, line)


def merge(tables: Iterable[Iterable[Rule]]) -> Mapping[str, Rule]:
    """Return all rules by id, ordered; raises InvalidInput for an id used twice."""
    merged: dict[str, Rule] = {}
    for rule in (rule for table in tables for rule in table):
        if merged.setdefault(rule.id, rule) is not rule:
            raise InvalidInput(f"rule id {rule.id} is used twice")
    return dict(sorted(merged.items()))


def all_rules() -> Mapping[str, Rule]:
    """Return every rule of the scanner by id; raises InvalidInput for an id used twice."""
    return merge(importlib.import_module(name).RULES for name in TABLES)
