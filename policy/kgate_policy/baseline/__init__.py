"""The built-in rules, `kgate-baseline`: one register of seven tables.

`PACK` changes when a rule is added or means something else; it goes into every policy's digest,
because a rule's code is as much a part of a decision as its settings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kgate_policy.baseline import advisories, contents, coverage, metadata, origin, scans, use
from kgate_policy.rules import merge

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kgate_policy.rules import Rule

PACK: Final = "kgate-baseline/4"

RULES: Final[Mapping[str, Rule]] = merge(
    (
        origin.RULES,
        scans.RULES,
        advisories.RULES,
        contents.RULES,
        metadata.RULES,
        coverage.RULES,
        use.RULES,
    )
)
