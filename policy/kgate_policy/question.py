"""One question to a policy as one file: everything that decides, and what was decided.

Read back years later it is asked again: the same bytes give the same decision, or reading refuses.
The file is not signed; the digests of evidence and policy are what attestations can be compared
with. Facts about the mirror and tenants' policies are part of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from kgate_core import strictjson
from kgate_core.clock import read_time, write_time
from kgate_core.errors import IntegrityError, InvalidInput
from kgate_core.evidence import Decision
from kgate_policy.evaluation import evaluate
from kgate_policy.exceptions import exception_text, load_exceptions
from kgate_policy.replay import (
    MAX_BYTES,
    evidence_bytes,
    policy_bytes,
    read_evidence,
    read_policy_bytes,
)
from kgate_policy.tenancy import Tenant, tighten

if TYPE_CHECKING:
    from datetime import datetime

    from kgate_core.evidence import Evidence, Facts
    from kgate_policy.evaluation import TenantJudge
    from kgate_policy.exceptions import KernelException
    from kgate_policy.policy import Policy

SCHEMA: Final = "kgate.dev/question/v2"
_FIELDS: Final = {"schema", "askedAt", "evidence", "policy", "exceptions", "decision"} | {
    "tenants",
    "surroundings",
}


@dataclass(frozen=True, slots=True)
class Question:
    """A variant's evidence, the policies and exceptions it is held against, and when."""

    evidence: Evidence
    policy: Policy
    now: datetime
    exceptions: tuple[KernelException, ...] = ()
    tenants: tuple[Tenant, ...] = ()
    surroundings: Facts = field(default_factory=dict)
    """Further facts, such as `mirror`; see docs/facts.md."""

    def decide(self, policy: Policy | None = None, judge: TenantJudge | None = None) -> Decision:
        """Ask the policy, or another one about the same, and the tenants' beside it."""
        asked = policy or self.policy
        decision = evaluate(
            self.evidence,
            asked,
            now=self.now,
            surroundings=self.surroundings,
            exceptions=self.exceptions,
        )
        return tighten(
            decision,
            self.evidence,
            self.tenants,
            site=asked,
            now=self.now,
            surroundings=self.surroundings,
            judge=judge,
        )

    def to_bytes(self) -> bytes:
        """Return canonical bytes, the decision among them."""
        return strictjson.dumps(
            {
                "schema": SCHEMA,
                "askedAt": write_time(self.now),
                "evidence": evidence_bytes(self.evidence).decode(),
                "policy": policy_bytes(self.policy).decode(),
                "surroundings": self.surroundings,
                "tenants": [
                    {
                        "name": item.name,
                        "repos": list(item.repos),
                        "policy": policy_bytes(item.policy).decode(),
                    }
                    for item in self.tenants
                ],
                "exceptions": [exception_text(item) for item in self.exceptions],
                "decision": self.decide().to_json(),
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> Question:
        """Read what `to_bytes` wrote and ask again.

        Raises InvalidInput, Conflict if this version has other built-in rules, and IntegrityError
        if the decision in the file does not follow from the rest of it.
        """
        what = "question"
        document = strictjson.loads(data, what=what, max_bytes=MAX_BYTES)
        schema = strictjson.take(document, "schema", str, what=what)
        strictjson.refuse_unknown(document, _FIELDS, what=what)
        question = cls(
            read_evidence(strictjson.take(document, "evidence", str, what=what).encode()),
            read_policy_bytes(strictjson.take(document, "policy", str, what=what).encode()),
            read_time(strictjson.take(document, "askedAt", str, what=what), what=what),
            tuple(
                exception
                for text in strictjson.take_strings(document, "exceptions", what=what)
                for exception in load_exceptions(text.encode())
            ),
            tuple(
                _read_tenant(item) for item in strictjson.take(document, "tenants", list, what=what)
            ),
            strictjson.take(document, "surroundings", dict, what=what),
        )
        decision = strictjson.take(document, "decision", dict, what=what)
        if schema != SCHEMA or Decision.from_json(decision) != question.decide():
            raise IntegrityError(
                f"{what}: the decision that it records does not follow from its evidence",
                hint="the file was changed, or another version of kgate wrote it",
            )
        return question


def _read_tenant(item: object) -> Tenant:
    what = "question: tenant"
    if not isinstance(item, dict):
        raise InvalidInput(f"{what}: not an object")
    strictjson.refuse_unknown(item, {"name", "repos", "policy"}, what=what)
    return Tenant(
        strictjson.take(item, "name", str, what=what),
        strictjson.take_strings(item, "repos", what=what),
        read_policy_bytes(strictjson.take(item, "policy", str, what=what).encode()),
    )
