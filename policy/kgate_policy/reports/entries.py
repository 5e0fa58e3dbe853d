"""What a report is made of: one entry for each variant that was asked about.

Values only; where they come from (a sync, a review of stored evidence) does not matter here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kgate_core.evidence import Outcome

if TYPE_CHECKING:
    from kgate_core.digest import Digest
    from kgate_core.evidence import Decision, Finding, RuleResult
    from kgate_core.kernel import KernelId


@dataclass(frozen=True, slots=True)
class Entry:
    """One variant: what was decided about it and what was seen in it."""

    kernel: KernelId
    lane: str
    policy: str
    results: tuple[RuleResult, ...]
    findings: tuple[Finding, ...] = ()
    manifest: Digest | None = None
    """None if its bytes were refused before there was a manifest."""
    pin: str = ""

    @classmethod
    def of(
        cls,
        kernel: KernelId,
        lane: str,
        decision: Decision,
        *,
        findings: tuple[Finding, ...] = (),
        manifest: Digest | None = None,
        pin: str = "",
    ) -> Entry:
        """Return the entry of a decision."""
        return cls(kernel, lane, decision.policy, decision.results, findings, manifest, pin)

    @property
    def allowed(self) -> bool:
        """True if at least one rule was asked and none denied."""
        return bool(self.results) and not any(r.outcome is Outcome.DENY for r in self.results)

    @property
    def name(self) -> str:
        """Repository, short commit and variant, for people."""
        return f"{self.kernel.repo}@{self.kernel.revision.short} {self.kernel.variant}"

    def of_outcome(self, outcome: Outcome) -> tuple[RuleResult, ...]:
        """Return the results with one outcome."""
        return tuple(result for result in self.results if result.outcome is outcome)
