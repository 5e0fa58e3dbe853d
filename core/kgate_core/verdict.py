"""The answer to "is this what was signed?", with every step that led to it.

Values only. `verify` finds the answer; nothing is compared here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from kgate_core.kernel import KernelRef, RepoType, Revision

if TYPE_CHECKING:
    from kgate_core.breakglass import BreakGlass
    from kgate_core.vsa import Vsa

STEP_NAMES: Final = {
    1: "trust metadata",
    2: "revocations",
    3: "bundle",
    4: "signature",
    5: "subjects",
    6: "identity",
    7: "decision",
    8: "roles",
    9: "break-glass",
}


class Reason(StrEnum):
    """Why something was rejected, as a stable word for reports and counters."""

    NO_BUNDLE = "no-attestation"
    MALFORMED = "malformed"
    UNKNOWN_LANE = "unknown-lane"
    STALE = "stale-trust"
    REVOKED = "revoked"
    UNKNOWN_KEY = "unknown-key"
    REVOKED_KEY = "revoked-key"
    BAD_SIGNATURE = "bad-signature"
    WRONG_SUBJECT = "wrong-subject"
    WRONG_IDENTITY = "wrong-identity"
    WRONG_LANE = "wrong-lane"
    POLICY = "policy-not-allowed"
    NOT_PASSED = "not-passed"
    EXPIRED = "expired"
    MISSING_ROLE = "missing-role"


@dataclass(frozen=True, slots=True)
class Expected:
    """What was asked for. None means that the caller could not know it, and it is not compared."""

    variant: str
    lane: str
    repo: KernelRef | None = None
    revision: Revision | None = None
    repo_type: RepoType = RepoType.KERNEL


@dataclass(frozen=True, slots=True)
class Step:
    """One numbered check: what was compared and how it came out."""

    number: int
    name: str
    ok: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Verified:
    """Enough of the right keys signed exactly this, and nothing revokes it."""

    vsa: Vsa
    signers: tuple[str, ...]
    """Role names with key hints, such as `admit:4f2c…`."""
    steps: tuple[Step, ...]
    break_glass: BreakGlass | None = None
    """What two people signed for a while although the decision is no; None if it is yes."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """At least one step failed; `message` is a sentence for people."""

    reason: Reason
    message: str
    steps: tuple[Step, ...] = ()


Verdict = Verified | Rejected


class Refusal(Exception):  # noqa: N818  # control flow of the checks, never leaves `verify`
    """A check that failed; becomes a `Rejected`."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


@dataclass(slots=True)
class Trace:
    """The steps so far."""

    steps: list[Step] = field(default_factory=list)

    def passed(self, number: int, detail: str) -> None:
        """Note a step that found nothing wrong."""
        self.steps.append(Step(number, STEP_NAMES[number], ok=True, detail=detail))

    def failed(self, number: int, detail: str) -> None:
        """Note a step that did."""
        self.steps.append(Step(number, STEP_NAMES[number], ok=False, detail=detail))
