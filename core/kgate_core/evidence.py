"""What was seen and what was decided: findings, scan reports, evidence, decisions.

A `Finding` says what a scan saw; a `Decision` says what a policy makes of all evidence. Neither
is cryptography: see `verify.Verdict`. Nothing here looks at bytes or evaluates rules.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, Any

from kgate_core import strictjson
from kgate_core.clock import read_time, write_time
from kgate_core.digest import Digest
from kgate_core.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from kgate_core.kernel import KernelId
    from kgate_core.manifest import Manifest

Facts = dict[str, Any]  # JSON objects; their shape is documented by the scanner's fact schema


class Severity(IntEnum):
    """How bad a finding is; ordered, so thresholds compare."""

    INFO = 0
    LOW = 1
    MEDIUM = 2
    HIGH = 3
    CRITICAL = 4

    @property
    def label(self) -> str:
        """Return the lower-case word that reports print."""
        return self.name.lower()

    @classmethod
    def parse(cls, text: str) -> Severity:
        """Read a lower-case word; raises InvalidInput."""
        try:
            return cls[text.upper()]
        except KeyError as exc:
            words = ", ".join(level.label for level in cls)
            raise InvalidInput(f"unknown severity {text!r}; known are {words}") from exc


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing a scan saw that somebody may care about."""

    rule: str
    """Stable id such as `KG-ELF-003`; each has a page in docs/rules/."""
    severity: Severity
    path: str
    """File it was seen in, relative to the variant (or to what was scanned)."""
    seen: str
    """What was there, in one sentence, with the offending value."""
    offset: int | None = None
    """Byte offset in the file, if there is one."""
    line: int | None = None
    """Line number from 1, for text files."""

    def to_json(self) -> Facts:
        """Return the finding as a JSON object without empty fields."""
        document: Facts = {
            "rule": self.rule,
            "severity": self.severity.label,
            "path": self.path,
            "seen": self.seen,
        }
        if self.offset is not None:
            document["offset"] = self.offset
        if self.line is not None:
            document["line"] = self.line
        return document

    @classmethod
    def from_json(cls, data: Facts) -> Finding:
        """Read what `to_json` wrote; raises InvalidInput."""
        what = "finding"
        rule = strictjson.take(data, "rule", str, what=what)
        offset, line = data.get("offset"), data.get("line")
        if not all(value is None or isinstance(value, int) for value in (offset, line)):
            raise InvalidInput("finding: offset and line are integers")
        return cls(
            rule,
            Severity.parse(strictjson.take(data, "severity", str, what=what)),
            strictjson.take(data, "path", str, what=what),
            strictjson.take(data, "seen", str, what=what),
            offset,
            line,
        )


@dataclass(frozen=True, slots=True)
class ScanReport:
    """Everything the scanner saw in one variant; equal bytes scanned give an equal report.

    It holds no times and no host names. `files` maps each path to its facts; `summary` is about
    the whole.
    """

    SCHEMA = "kgate.dev/scan/v1"

    scanner: str
    """Name and version of the scanner with its rule set, such as `kgate-scanner/0.1.0`."""
    subject: Digest
    """Digest of the manifest (or file) that was scanned."""
    files: Mapping[str, Facts]
    summary: Facts
    findings: tuple[Finding, ...]
    complete: bool = True
    """False if a parser gave up (limit or error): then absence of findings proves nothing."""

    @property
    def worst(self) -> Severity:
        """The highest severity among the findings, INFO if there are none."""
        return max((finding.severity for finding in self.findings), default=Severity.INFO)

    def to_bytes(self) -> bytes:
        """Return canonical bytes: stored, digested and attested."""
        return strictjson.dumps(
            {
                "schema": self.SCHEMA,
                "scanner": self.scanner,
                "subject": str(self.subject),
                "complete": self.complete,
                "files": dict(self.files),
                "summary": self.summary,
                "findings": [finding.to_json() for finding in self.findings],
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> ScanReport:
        """Read what `to_bytes` wrote; raises InvalidInput."""
        what = "scan report"
        # A report over thousands of device kernels is larger than a signed document.
        document = strictjson.loads(data, what=what, max_bytes=256 * 1024**2)
        if strictjson.take(document, "schema", str, what=what) != cls.SCHEMA:
            raise InvalidInput(f"{what}: unknown schema {document['schema']!r}")
        return cls(
            scanner=strictjson.take(document, "scanner", str, what=what),
            subject=Digest.parse(strictjson.take(document, "subject", str, what=what)),
            files=strictjson.take(document, "files", dict, what=what),
            summary=strictjson.take(document, "summary", dict, what=what),
            findings=tuple(
                Finding.from_json(item)
                for item in strictjson.take(document, "findings", list, what=what)
            ),
            complete=strictjson.take(document, "complete", bool, what=what),
        )


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that is known about one variant when a policy is asked about it."""

    kernel: KernelId
    """Origin, type, repository, upstream commit and variant."""
    lane: str
    manifest: Manifest
    metadata: Facts
    """The variant's parsed `metadata.json`, as upstream wrote it."""
    scan: ScanReport | None
    sbom: Digest | None
    """Digest of the stored CycloneDX document."""
    imported: Facts
    """How it came: pin asked for, upstream's own evidence, checks made while storing."""
    asked: Facts = field(default_factory=dict)
    """The pin as a person wrote it."""
    stated: Facts = field(default_factory=dict)
    """What else is known about these bytes: `qualification`, `images`; see docs/facts.md."""


class Outcome(StrEnum):
    """What one rule says."""

    PASS = "pass"  # noqa: S105  # not a password
    WARN = "warn"
    DENY = "deny"


@dataclass(frozen=True, slots=True)
class RuleResult:
    """One rule's answer about one variant."""

    rule: str
    outcome: Outcome
    seen: str
    """The value that decided, in a sentence."""
    hint: str = ""
    """What a person can do next; empty when the rule passed."""

    def to_json(self) -> Facts:
        """Return the result as a JSON object."""
        return {
            "rule": self.rule,
            "outcome": str(self.outcome),
            "seen": self.seen,
            "hint": self.hint,
        }

    @classmethod
    def from_json(cls, data: Facts) -> RuleResult:
        """Read what `to_json` wrote; raises InvalidInput."""
        what = "rule result"
        outcome = strictjson.take(data, "outcome", str, what=what)
        if outcome not in set(Outcome):
            raise InvalidInput(f"{what}: unknown outcome {outcome!r}")
        return cls(
            strictjson.take(data, "rule", str, what=what),
            Outcome(outcome),
            strictjson.take(data, "seen", str, what=what),
            strictjson.take(data, "hint", str, what=what),
        )


@dataclass(frozen=True, slots=True)
class Decision:
    """What a policy decided about one variant, with every rule's answer.

    `allowed` is true only if at least one rule was asked and none denied: an empty policy denies.
    """

    policy: str
    """Name of the policy (profile) that was applied."""
    policy_digest: Digest
    results: tuple[RuleResult, ...]
    decided_at: datetime

    @property
    def allowed(self) -> bool:
        """True if the kernel may be used."""
        return bool(self.results) and not self.denials

    @property
    def denials(self) -> tuple[RuleResult, ...]:
        """The rules that said no."""
        return tuple(result for result in self.results if result.outcome is Outcome.DENY)

    @property
    def warnings(self) -> tuple[RuleResult, ...]:
        """The rules that did not say no but want to be heard."""
        return tuple(result for result in self.results if result.outcome is Outcome.WARN)

    def to_json(self) -> Facts:
        """Return the decision as a JSON object; `decided_at` in RFC 3339, UTC."""
        return {
            "policy": self.policy,
            "policyDigest": str(self.policy_digest),
            "allowed": self.allowed,
            "decidedAt": write_time(self.decided_at),
            "results": [result.to_json() for result in self.results],
        }

    @classmethod
    def from_json(cls, data: Facts) -> Decision:
        """Read what `to_json` wrote; raises InvalidInput if `allowed` does not follow from it."""
        what = "decision"
        decision = cls(
            strictjson.take(data, "policy", str, what=what),
            Digest.parse(strictjson.take(data, "policyDigest", str, what=what)),
            tuple(
                RuleResult.from_json(item)
                for item in strictjson.take(data, "results", list, what=what)
            ),
            read_time(strictjson.take(data, "decidedAt", str, what=what), what=what),
        )
        if decision.allowed is not strictjson.take(data, "allowed", bool, what=what):
            raise InvalidInput(f"{what}: 'allowed' does not follow from its rule results")
        return decision
