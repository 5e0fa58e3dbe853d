"""Writes docs/policy-rules.md, docs/lint-rules.md and the transcript in docs/policy.md.

Texts and nothing else; a test compares them with the files in the repository.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from kgate_policy.baseline import PACK, RULES
from kgate_policy.evaluation import evaluate
from kgate_policy.exceptions import NEVER
from kgate_policy.explain import explain, explain_text
from kgate_policy.lint.findings import RULES as LINT_RULES
from kgate_policy.profiles import PROFILES
from kgate_policy.samples import sample_evidence

if TYPE_CHECKING:
    from kgate_policy.rules import Rule

_MOMENT: Final = datetime(2026, 11, 21, 12, tzinfo=UTC)
_TRANSCRIPT: Final = re.compile(r"^(```text explain\n)(?:.*\n)*?(```)$", re.MULTILINE)


def rules_page() -> str:
    """Return the page as Markdown."""
    lines = [
        "# Built-in rules",
        "",
        "<!-- Written from policy/kgate_policy/baseline/ by `make docs`; do not edit. -->",
        "",
        f"The pack `{PACK}`. Every rule is asked about every variant; one denial refuses it. How",
        "much a rule counts is set by the profile and can be changed in a policy file.",
        "",
        f"| rule | {' | '.join(PROFILES)} |",
        f"|---|{'---|' * len(PROFILES)}",
    ]
    for rule in RULES.values():
        levels = " | ".join(str(policy.rules[rule.id]) for policy in PROFILES.values())
        lines.append(f"| [{rule.id}](#{rule.id}) | {levels} |")
    thresholds = (
        f"`{name}` denies from {policy.parameters.severity_deny.label} and warns from "
        f"{policy.parameters.severity_warn.label}"
        for name, policy in PROFILES.items()
    )
    lines += ["", f"Severity of findings: {'; '.join(thresholds)}."]
    for rule in RULES.values():
        lines += _section(rule)
    return "\n".join(lines) + "\n"


def transcript() -> str:
    """Return the explanation that docs/policy.md shows: the sample, unsigned, in production."""
    evidence = sample_evidence(imported={"upstreamSignature": {"status": "missing"}})
    policy = PROFILES["production"]
    return explain_text(explain(evidence, policy, evaluate(evidence, policy, now=_MOMENT)))


def policy_page(text: str) -> str:
    """Return docs/policy.md with the present transcript in its place."""
    return _TRANSCRIPT.sub(lambda found: f"{found[1]}{transcript()}{found[2]}", text)


def lint_page() -> str:
    """Return docs/lint-rules.md as Markdown."""
    lines = [
        "# Rules of kgate lint",
        "",
        "<!-- Written from policy/kgate_policy/lint/findings.py by `make docs`; do not edit. -->",
        "",
        "Read as text: Python sources, `config.json` of models, Dockerfiles, KernelPort manifests",
        "and Kubernetes YAML. A line that ends in `kgate: ignore[KG-LINT-001] reason` is excused.",
    ]
    for rule in LINT_RULES.values():
        lines += [
            "",
            f"## {rule.id}",
            "",
            f"**{rule.title}** ({rule.severity.label}). {rule.why}",
            "",
            f"What to do: {rule.fix}",
        ]
    return "\n".join(lines) + "\n"


def _section(rule: Rule) -> list[str]:
    facts = ", ".join(f"`{path}`" for path in rule.asks)
    return [
        "",
        f"## {rule.id}",
        "",
        f"**{rule.title}.** {rule.why}",
        "",
        f"* What to do: {rule.fix}",
        f"* Checklist: {rule.checklist}",
        f"* Looks at: {facts}",
        f"* Exceptions: {'never' if rule.id in NEVER else 'for single digests, with an end'}",
    ]
