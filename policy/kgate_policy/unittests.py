"""Tests of a policy, written in YAML beside it.

A case takes the sample of `samples`, changes what it is about and says what the policy should
answer. Cases are read strictly: a misspelt field is refused, because a test that changes nothing
proves nothing. Returns values; nothing is rendered.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from kgate_core.clock import write_time
from kgate_core.errors import InvalidInput
from kgate_core.evidence import Finding, Outcome, Severity
from kgate_policy.document import check_header, read_all
from kgate_policy.evaluation import evaluate
from kgate_policy.samples import (
    FETCHED,
    FILES,
    LANE,
    REPO,
    VARIANT,
    sample_evidence,
    sample_metadata,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from kgate_core.evidence import Decision, Evidence, Facts
    from kgate_policy.evaluation import TenantJudge
    from kgate_policy.located import Located
    from kgate_policy.policy import Policy

KIND: Final = "PolicyTest"
_CASE: Final = {"name", "kernel", "with", "expect", "rules"}
_KERNEL: Final = {"repo", "variant", "lane", "files", "metadata", "findings", "signature"} | {
    "pin",
    "scanned",
    "depends",
    "unmet",
    "importedAt",
    "scannedAt",
    "architectures",
    "libraries",
    "imports",
    "qualification",
    "images",
}
_AROUND: Final = {"mirror", "request", "object", "oldObject", "namespaceObject", "node"}


@dataclass(frozen=True, slots=True)
class Case:
    """One test: evidence, further facts, and what is expected of them."""

    name: str
    evidence: Evidence
    surroundings: Facts
    expect: Outcome
    """deny, warn (allowed, with a warning) or pass (allowed without)."""
    rules: tuple[tuple[str, Outcome], ...]
    """What single rules should answer."""
    where: str
    """Source and line, for messages."""


@dataclass(frozen=True, slots=True)
class CaseResult:
    """How one case came out; no complaints means that it passed."""

    case: Case
    decision: Decision
    complaints: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """True if everything came out as expected."""
        return not self.complaints


def load_cases(source: Path | str | bytes) -> tuple[Case, ...]:
    """Read every document of kind PolicyTest; raises InvalidInput and NotFound."""
    cases = [
        _case(item)
        for document in read_all(source)
        if document.required("kind").value == KIND
        for item in _cases(document)
    ]
    names = [case.name for case in cases]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InvalidInput(f"two policy tests have the name {twice[0]!r}")
    return tuple(cases)


def run_cases(
    cases: Sequence[Case], policy: Policy, *, now: datetime, tenants: TenantJudge | None = None
) -> tuple[CaseResult, ...]:
    """Ask a policy about every case; raises InvalidInput if there is none."""
    if not cases:
        raise InvalidInput("there are no policy tests", hint=f"write a document of kind {KIND}")
    return tuple(_run(case, policy, now, tenants) for case in cases)


def _run(case: Case, policy: Policy, now: datetime, tenants: TenantJudge | None) -> CaseResult:
    evidence = case.evidence
    if evidence.imported.get("scannedAt") == FETCHED:
        # The sample never grows old: a test says what it is about, and age is not it.
        evidence = replace(evidence, imported=evidence.imported | {"scannedAt": write_time(now)})
    decision = evaluate(evidence, policy, now=now, surroundings=case.surroundings, tenants=tenants)
    answers = {result.rule: result for result in decision.results}
    complaints = []
    found = overall(decision)
    if found is not case.expect:
        reasons = decision.denials or decision.warnings
        said = "".join(f"; {item.rule}: {item.seen}" for item in reasons[:3])
        complaints.append(f"expected {case.expect}, but it is {found}{said}")
    for rule, expected in case.rules:
        answer = answers.get(rule)
        if answer is None:
            complaints.append(f"{rule}: expected {expected}, but it was not asked")
        elif answer.outcome is not expected:
            complaints.append(
                f"{rule}: expected {expected}, but it is {answer.outcome}: {answer.seen}"
            )
    return CaseResult(case, decision, tuple(complaints))


def overall(decision: Decision) -> Outcome:
    """Return deny, warn or pass for a whole decision."""
    if not decision.allowed:
        return Outcome.DENY
    return Outcome.WARN if decision.warnings else Outcome.PASS


def _cases(document: Located) -> list[Located]:
    document.mapping({"apiVersion", "kind", "name", "cases"})
    check_header(document, KIND)
    cases = document.required("cases").items()
    if not cases:
        document.required("cases").fail("a test without cases proves nothing")
    return cases


def _case(item: Located) -> Case:
    fields = item.mapping(_CASE)
    around: Facts = {}
    if "with" in fields:
        around = {key: value.plain() for key, value in fields["with"].mapping(_AROUND).items()}
    rules = fields["rules"].mapping() if "rules" in fields else {}
    return Case(
        name=item.required("name").text(),
        evidence=_evidence(fields["kernel"]) if "kernel" in fields else sample_evidence(),
        surroundings=around,
        expect=item.required("expect").choice(Outcome),
        rules=tuple((rule, value.choice(Outcome)) for rule, value in rules.items()),
        where=f"{item.source}, line {item.line}",
    )


def _evidence(item: Located) -> Evidence:
    fields = item.mapping(_KERNEL)
    record: dict[str, Any] = {
        key: fields[key].plain() for key in ("pin", "depends", "unmet") if key in fields
    }
    if "scannedAt" in fields:
        record["scannedAt"] = fields["scannedAt"].text()
    if "importedAt" in fields:
        record["fetchedAt"] = fields["importedAt"].text()
    if "signature" in fields:
        record["upstreamSignature"] = {"status": fields["signature"].text(), "detail": "a test"}
    metadata = sample_metadata()
    for key, value in (fields["metadata"].mapping() if "metadata" in fields else {}).items():
        # An explicit null takes a field away.
        if value.value is None:
            metadata.pop(key, None)
        else:
            metadata[key] = value.plain()
    findings = fields["findings"].items() if "findings" in fields else []
    try:
        return sample_evidence(
            repo=fields["repo"].text() if "repo" in fields else REPO,
            variant=fields["variant"].text() if "variant" in fields else VARIANT,
            lane=fields["lane"].text() if "lane" in fields else LANE,
            paths=fields["files"].texts() if "files" in fields else FILES,
            metadata=metadata,
            findings=tuple(_finding(entry) for entry in findings),
            summary=_summary(fields),
            imported=record,
            scanned=fields["scanned"].flag() if "scanned" in fields else True,
            stated={
                key: fields[key].plain() for key in ("qualification", "images") if key in fields
            },
        )
    except InvalidInput as exc:
        if exc.message.startswith(item.source):
            raise
        return item.fail(exc.message, hint=exc.hint)


def _summary(fields: Mapping[str, Located]) -> Facts:
    """Return the part of a scan's summary that facts are taken from."""
    lists = {
        key: list(fields[key].texts()) if key in fields else []
        for key in ("architectures", "libraries", "imports")
    }
    return {
        "device": {"archs": {"any": lists["architectures"]}},
        "host": {"needed": lists["libraries"]},
        "python": {"imports": lists["imports"]},
    }


def _finding(item: Located) -> Finding:
    fields = item.mapping({"rule", "severity", "path", "seen"})
    severity = item.required("severity")
    try:
        level = Severity.parse(severity.text())
    except InvalidInput as exc:
        severity.fail(exc.message)
    return Finding(
        item.required("rule").text(),
        level,
        fields["path"].text() if "path" in fields else FILES[0],
        fields["seen"].text() if "seen" in fields else "seen in a policy test",
    )
