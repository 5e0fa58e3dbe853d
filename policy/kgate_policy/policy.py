"""A policy as a value: which rules count how much, and what they compare with.

Equal policies have equal digests, which every decision carries. Reading YAML is `document`'s
work, deciding is `evaluation`'s.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from kgate_core import strictjson
from kgate_core.digest import Digest
from kgate_core.errors import InvalidInput
from kgate_policy.baseline import PACK, RULES
from kgate_policy.parameters import Parameters

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kgate_core.evidence import Facts
    from kgate_policy.expressions.model import ExpressionPolicy
    from kgate_policy.rules import Level

SCHEMA: Final = "kgate.dev/policy/v1"


@dataclass(frozen=True)
class Policy:
    """A named set of rules with their levels and parameters.

    `rules` holds every rule that was mentioned, also those that are off: what was switched off on
    purpose is part of the digest.
    """

    name: str
    rules: Mapping[str, Level]
    parameters: Parameters = field(default_factory=Parameters)
    expressions: tuple[ExpressionPolicy, ...] = ()
    """Policies that people wrote; asked after the built-in rules, in this order."""

    def __post_init__(self) -> None:
        names = [item.name for item in self.expressions]
        twice = sorted({name for name in names if names.count(name) > 1 or name in RULES})
        if twice:
            raise InvalidInput(f"policy {self.name}: the name {twice[0]!r} is taken twice")
        # A copy that cannot be changed: the digest is computed once.
        object.__setattr__(self, "rules", MappingProxyType(dict(self.rules)))
        unknown = sorted(set(self.rules) - set(RULES))
        if unknown:
            raise InvalidInput(f"policy {self.name}: there is no rule {unknown[0]!r}")

    @cached_property
    def digest(self) -> Digest:
        """The digest of the canonical JSON: what a lane's trust metadata names."""
        return Digest.of(strictjson.dumps(self.to_json()))

    def to_json(self) -> Facts:
        """Return everything that decides, as a JSON object."""
        return {
            "schema": SCHEMA,
            "name": self.name,
            "pack": PACK,
            "rules": {rule: str(level) for rule, level in self.rules.items()},
            "parameters": self.parameters.to_json(),
            "expressions": [
                {"tenant": item.tenant, "document": item.to_json()} for item in self.expressions
            ],
        }
