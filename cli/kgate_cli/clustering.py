"""`kgate policy eval --cluster`: ask the lanes' policies about a dump of a cluster."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kgate_cli import exits

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from kgate_cli.output import Output
    from kgate_core.evidence import Decision, Evidence, RuleResult
    from kgate_mirror_server.app import Mirror
    from kgate_policy import Policy
    from kgate_policy.lint.findings import LintFinding
    from kgate_policy.workloads import Workload


@dataclass(frozen=True, slots=True)
class Answer:
    """What is known about one workload."""

    workload: Workload
    lane: str
    decisions: tuple[tuple[Evidence, Decision], ...]
    missing: tuple[str, ...]
    """Kernels that it states and that are not mirrored in its lane."""
    results: tuple[RuleResult, ...]
    """What the policies with `resourceRules` say of the object itself."""
    findings: tuple[LintFinding, ...]

    @property
    def allowed(self) -> bool:
        """True if nothing denies it."""
        denied = any(str(item.outcome) == "deny" for item in self.results)
        return not denied and not self.missing and all(d.allowed for _, d in self.decisions)

    def to_json(self) -> dict[str, Any]:
        """Return the answer as a JSON object."""
        return {
            "workload": self.workload.name,
            "lane": self.lane,
            "stated": self.workload.source,
            "allowed": self.allowed,
            "kernels": [
                {"kernel": item.kernel.purl, **decision.to_json()}
                for item, decision in self.decisions
            ],
            "not_mirrored": list(self.missing),
            "results": [item.to_json() for item in self.results],
            "findings": [item.to_json() for item in self.findings],
        }


def ask_cluster(
    mirror: Mirror, dump: Path, now: datetime, policy: Policy | None
) -> tuple[list[Answer], int]:
    """Return an answer for each workload that may load kernels, and how many others there are.

    Raises InvalidInput for a file that is no dump, NotFound for none.
    """
    from kgate_core.errors import NotFound
    from kgate_policy.workloads import read_workloads

    try:
        data = dump.read_bytes()
    except OSError as exc:
        raise NotFound(f"{dump} cannot be read ({exc.strerror})") from exc
    answers = [_ask(mirror, item, now, policy) for item in read_workloads(data, source=str(dump))]
    told = [item for item in answers if item.workload.concerned or item.results]
    return told, len(answers) - len(told)


def _ask(mirror: Mirror, workload: Workload, now: datetime, policy: Policy | None) -> Answer:
    from kgate_mirror_server.rulebook import surroundings
    from kgate_policy.evaluation import judge_all
    from kgate_policy.facts.collect import kernel_facts
    from kgate_policy.lint.manifests import lint_yaml

    lane = workload.lane or mirror.config.lane
    decisions, missing = _kernels(mirror, workload, lane, now, policy)
    about = policy or mirror.rules.of(lane)
    results = judge_all(
        [item for item in about.expressions if item.resources],
        [kernel_facts(evidence, decision.results) for evidence, decision in decisions],
        now=now,
        surroundings={
            **surroundings(mirror, lane, now),
            "request": workload.request,
            "object": workload.object,
        },
    )
    text = json.dumps(workload.object).encode()
    findings = lint_yaml(text, workload.name, None) if workload.concerned else []
    return Answer(workload, lane, tuple(decisions), tuple(missing), tuple(results), tuple(findings))


def _kernels(
    mirror: Mirror, workload: Workload, lane: str, now: datetime, policy: Policy | None
) -> tuple[list[tuple[Evidence, Decision]], list[str]]:
    from kgate_core.errors import InvalidInput, NotFound
    from kgate_mirror_server.ingest.review import inventory_evidence

    decisions: dict[tuple[object, ...], tuple[Evidence, Decision]] = {}
    missing = []
    for name in workload.kernels:
        try:
            found = [item for item in inventory_evidence(mirror, name) if item.lane == lane]
        except (NotFound, InvalidInput):
            found = []
        if name.startswith("sha256:"):
            found = [item for item in found if str(item.manifest.digest) == name]
        if not found or ("@" not in name and not name.startswith("sha256:")):
            missing.append(name)
        for item in found:
            key = (item.kernel, item.manifest.digest)
            decisions[key] = (item, mirror.decide(item, now, policy))
    return list(decisions.values()), missing


def render_cluster(output: Output, answers: list[Answer], others: int) -> int:
    """Print the answers and return the exit code."""
    ok = all(item.allowed for item in answers)
    output.result(
        "policy-eval",
        {"workloads": [item.to_json() for item in answers], "others": others},
        ok=ok,
    )
    for answer in answers:
        asked = answer.decisions or answer.results
        word = "nothing to decide" if asked == () else "allowed"
        word = word if answer.allowed else "denied"
        stated = answer.workload.source or "states no kernels"
        output.say(f"[bold]{answer.workload.name}[/bold] (lane {answer.lane}, {stated}): {word}")
        for evidence, decision in answer.decisions:
            kernel = evidence.kernel
            word = "allowed" if decision.allowed else "denied"
            output.plain(f"  {kernel.repo}@{kernel.revision.short} {kernel.variant}: {word}")
            for result in decision.denials:
                output.plain(f"    deny {result.rule}: {result.seen}")
        for name in answer.missing:
            output.plain(f"  {name}: not mirrored in lane {answer.lane}, or names no version")
        for result in answer.results:
            if str(result.outcome) != "pass":
                output.plain(f"  {result.outcome} {result.rule}: {result.seen}")
        for finding in answer.findings:
            output.plain(f"  {finding.severity.label} {finding.rule}: {finding.seen}")
    output.say(f"{len(answers)} workloads; {others} others state no kernel and ask for no GPU.")
    return exits.YES if ok else exits.NO
