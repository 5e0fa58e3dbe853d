"""A card about a kernel that somebody wants to add: what a reviewer should see first.

Made from the same evidence that a policy is asked about. It counts and names; whether the kernel
may be used is decided elsewhere.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kgate_core.errors import InvalidInput
from kgate_core.evidence import Outcome, Severity
from kgate_policy.facts.collect import kernel_facts
from kgate_policy.reports.markdown import escape

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from kgate_core.evidence import Decision, Evidence, Facts


@dataclass(frozen=True, slots=True)
class RiskCard:
    """What is known about one repository at one commit, over all its variants."""

    kernel: str
    origin: str
    revision: str
    variants: tuple[str, ...]
    denied: tuple[str, ...]
    """Variants that the policy denies."""
    rules: tuple[str, ...]
    """Rules that deny any of them."""
    signatures: tuple[str, ...]
    licences: tuple[str, ...]
    backends: tuple[str, ...]
    architectures: tuple[str, ...]
    libraries: tuple[str, ...]
    depends: tuple[str, ...]
    findings: tuple[tuple[str, int], ...]
    """Number of findings by severity, the worst first, without zeros."""
    size: int
    """Bytes of all variants together."""

    def to_json(self) -> Facts:
        """Return the card as a JSON object."""
        return {
            "kernel": self.kernel,
            "origin": self.origin,
            "revision": self.revision,
            "variants": list(self.variants),
            "denied": list(self.denied),
            "rules": list(self.rules),
            "signatures": list(self.signatures),
            "licences": list(self.licences),
            "backends": list(self.backends),
            "architectures": list(self.architectures),
            "libraries": list(self.libraries),
            "depends": list(self.depends),
            "findings": dict(self.findings),
            "size": self.size,
        }

    def to_markdown(self) -> str:
        """Return the card as a Markdown table, for the description of a merge request."""
        found = ", ".join(f"{count} {level}" for level, count in self.findings)
        denied = f"{len(self.denied)} of {len(self.variants)} variants"
        rows = (
            ("publisher", self.kernel.partition("/")[0]),
            ("from", f"{self.origin} at {self.revision}"),
            ("signature", ", ".join(self.signatures)),
            ("licence", ", ".join(self.licences)),
            ("backends", ", ".join(self.backends)),
            ("architectures", ", ".join(self.architectures)),
            ("needs", ", ".join(self.libraries)),
            ("loads", ", ".join(self.depends)),
            ("findings", found),
            ("size", f"{self.size / 1e6:.1f} MB in {len(self.variants)} variants"),
            ("denied", f"{denied}: {', '.join(self.rules)}" if self.denied else "nothing"),
        )
        lines = [f"### {escape(self.kernel)}", "", "| | |", "|---|---|"]
        lines += [f"| {name} | {escape(value) or 'none'} |" for name, value in rows]
        return "\n".join(lines) + "\n"


def risk_card(asked: Sequence[tuple[Evidence, Decision]]) -> RiskCard:
    """Return the card of one repository's variants; raises InvalidInput if there are none."""
    if len({(item.kernel.repo, item.kernel.revision) for item, _ in asked}) != 1:
        raise InvalidInput("a card is about one repository at one commit")
    first = asked[0][0].kernel
    facts = [kernel_facts(evidence) for evidence, _ in asked]
    counts = Counter(
        finding.severity
        for evidence, _ in asked
        for finding in (evidence.scan.findings if evidence.scan else ())
    )
    return RiskCard(
        kernel=str(first.repo),
        origin=first.origin,
        revision=str(first.revision),
        variants=tuple(item.kernel.variant for item, _ in asked),
        denied=tuple(item.kernel.variant for item, decision in asked if not decision.allowed),
        rules=_distinct(
            [result.rule]
            for _, decision in asked
            for result in decision.results
            if result.outcome is Outcome.DENY
        ),
        signatures=_distinct([item.get("signature", {}).get("status", "none")] for item in facts),
        licences=_distinct([item["metadata"].get("license", "none")] for item in facts),
        backends=_distinct([item["backend"]] for item in facts),
        architectures=_distinct(item["architectures"] for item in facts),
        libraries=_distinct(item["libraries"] for item in facts),
        depends=_distinct(item["metadata"].get("kernelDepends", []) for item in facts),
        findings=tuple(
            (level.label, counts[level])
            for level in sorted(Severity, reverse=True)
            if counts[level]
        ),
        size=sum(evidence.manifest.size for evidence, _ in asked),
    )


def _distinct(lists: Iterable[Iterable[str]]) -> tuple[str, ...]:
    return tuple(sorted({value for values in lists for value in values}))
