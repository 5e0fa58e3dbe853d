"""Break-glass: two people let one kernel into one lane for hours, although the decision is no.

A statement of its own, never a decision: it names what it is for and who asked, it ends by itself,
and it needs three keys. Whoever asked signs it, and so do two holders of the role approve, neither
of whom asked. `verify` looks at it only after the ordinary way failed, and after the lane, the age
of the trust metadata and the revocations were found in order: nobody breaks the glass over those.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from kgate_core import strictjson
from kgate_core.bundle import Bundle
from kgate_core.checks import check_identity, check_signature, check_subjects
from kgate_core.clock import read_time, write_time
from kgate_core.digest import Digest
from kgate_core.errors import InvalidInput
from kgate_core.kernel import KernelId, Revision
from kgate_core.statement import PAYLOAD_TYPE, Statement
from kgate_core.trust import CLOCK_SKEW
from kgate_core.verdict import Reason, Refusal, Trace
from kgate_core.vsa import Vsa

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from kgate_core.manifest import Manifest
    from kgate_core.trust import Lane, TrustedRoot
    from kgate_core.verdict import Expected

PREDICATE_TYPE: Final = "https://kgate.dev/break-glass/v1"
APPROVE: Final = "approve"
MAX_LASTING: Final = timedelta(hours=72)  # a weekend; what lasts longer is an exception
MIN_REASON: Final = 12  # characters; "ok" is not a reason
NEEDED: Final = 2  # approvers besides whoever asked


@dataclass(frozen=True, slots=True)
class BreakGlass:
    """What is let in, where, for how long, and why."""

    kernel: KernelId
    """As served: its revision is the one that clients see."""
    upstream_revision: Revision
    lane: str
    site: str
    manifest: Digest
    metadata_id: str
    depends: tuple[Digest, ...]
    """Manifest digests of the kernels this one loads."""
    overrules: tuple[str, ...]
    """The rules that deny it, or `approve` where only that signature is missing."""
    reason: str
    requested_by: str
    """Name of whoever asked, for people."""
    requester: str
    """Hint of the key of whoever asked; it signs too, and never as an approver."""
    granted: datetime
    until: datetime

    def __post_init__(self) -> None:
        if not self.granted < self.until <= self.granted + MAX_LASTING:
            hours = int(MAX_LASTING.total_seconds() // 3600)
            raise InvalidInput(f"break-glass ends within {hours} hours after it began")
        if len(self.reason.strip()) < MIN_REASON:
            raise InvalidInput(f"break-glass needs a reason of at least {MIN_REASON} characters")
        if not self.requested_by.strip() or not self.requester:
            raise InvalidInput("break-glass names who asked for it, and their key")

    def to_predicate(self) -> dict[str, Any]:
        """Return the predicate object."""
        return {
            "resourceUri": self.kernel.purl,
            "upstreamRevision": str(self.upstream_revision),
            "lane": self.lane,
            "site": self.site,
            "manifest": str(self.manifest),
            "metadataId": self.metadata_id,
            "depends": [str(digest) for digest in self.depends],
            "overrules": list(self.overrules),
            "reason": self.reason,
            "requestedBy": {"name": self.requested_by, "key": self.requester},
            "granted": write_time(self.granted),
            "until": write_time(self.until),
        }

    @classmethod
    def from_predicate(cls, data: dict[str, Any]) -> BreakGlass:
        """Read a predicate object; raises InvalidInput."""
        what = "break-glass"

        def text(name: str) -> str:
            return strictjson.take(data, name, str, what=what)

        asked = strictjson.take(data, "requestedBy", dict, what=what)
        return cls(
            KernelId.parse_purl(text("resourceUri")),
            Revision(text("upstreamRevision")),
            text("lane"),
            text("site"),
            Digest.parse(text("manifest")),
            text("metadataId"),
            tuple(Digest.parse(d) for d in strictjson.take_strings(data, "depends", what=what)),
            strictjson.take_strings(data, "overrules", what=what),
            text("reason"),
            strictjson.take(asked, "name", str, what=what),
            strictjson.take(asked, "key", str, what=what),
            read_time(text("granted"), what=what),
            read_time(text("until"), what=what),
        )

    def to_vsa(self) -> Vsa:
        """Return its claims in the form of a decision that did not pass; nobody signed that."""
        return Vsa(
            kernel=self.kernel,
            upstream_revision=self.upstream_revision,
            lane=self.lane,
            site=self.site,
            manifest=self.manifest,
            metadata_id=self.metadata_id,
            depends=self.depends,
            policy_uri="kgate:break-glass",
            policy_digest=self.manifest,
            passed=False,
            verified_at=self.granted,
            valid_until=self.until,
        )


@dataclass(frozen=True, slots=True)
class Opened:
    """A break-glass statement that counts now, and who signed it."""

    statement: BreakGlass
    signers: tuple[str, ...]


def open_glass(
    expected: Expected,
    manifest: Manifest,
    bundles: Iterable[bytes],
    lane: Lane,
    trusted: TrustedRoot,
    now: datetime,
) -> Opened | str | None:
    """Return the first statement that counts, why the last does not, or None if there is none."""
    refused: str | None = None
    for data, group in _grouped(bundles).items():
        try:
            return _check(data, group, expected, manifest, lane, trusted, now)
        except InvalidInput as exc:
            refused = exc.message
        except Refusal as exc:
            refused = exc.message
    return refused


def _grouped(bundles: Iterable[bytes]) -> dict[bytes, list[Bundle]]:
    """Return the bundles over break-glass statements, by the exact bytes that they sign."""
    groups: dict[bytes, list[Bundle]] = {}
    for data in bundles:
        try:
            bundle = Bundle.parse(data)
            payload = bundle.envelope.payload
            kind = Statement.parse(payload).predicate_type
        except InvalidInput:
            continue
        if kind == PREDICATE_TYPE and bundle.envelope.payload_type == PAYLOAD_TYPE:
            groups.setdefault(payload, []).append(bundle)
    return groups


def _check(  # private: one argument for each thing compared
    data: bytes,
    bundles: Sequence[Bundle],
    expected: Expected,
    manifest: Manifest,
    lane: Lane,
    trusted: TrustedRoot,
    now: datetime,
) -> Opened:
    statement = Statement.parse(data)
    trace = Trace()
    check_subjects(statement, manifest, trace)
    found = BreakGlass.from_predicate(statement.predicate)
    check_identity(found.kernel, expected, lane, trace)
    if found.manifest != manifest.digest:
        raise Refusal(Reason.WRONG_SUBJECT, f"it is for {found.manifest}, not this manifest")
    if (found.lane, found.site) != (lane.name, trusted.site):
        raise Refusal(
            Reason.WRONG_LANE,
            f"it is for lane {found.lane} of {found.site}, asked for {lane.name} of {trusted.site}",
        )
    if not found.granted - CLOCK_SKEW <= now < found.until:
        raise Refusal(
            Reason.EXPIRED,
            f"it counts from {write_time(found.granted)} until {write_time(found.until)}",
        )
    signers = _signers(bundles, trusted, now)
    if found.requester not in signers:
        raise Refusal(Reason.MISSING_ROLE, f"the key {found.requester}, which asked, did not sign")
    allowed = sorted((signers & approvers(lane, trusted)) - {found.requester})
    if len(allowed) < NEEDED:
        raise Refusal(
            Reason.MISSING_ROLE,
            f"it needs {NEEDED} keys of the role {APPROVE} besides the one that asked,"
            f" found {len(allowed)}",
        )
    return Opened(found, (f"request:{found.requester}", *(f"{APPROVE}:{h}" for h in allowed)))


def _signers(bundles: Sequence[Bundle], trusted: TrustedRoot, now: datetime) -> set[str]:
    """Return the hints of the trusted keys that signed, each while it counted."""
    signers = set()
    for bundle in bundles:
        try:
            check_signature(bundle, trusted, now, Trace())
        except Refusal:
            continue
        signers.add(bundle.hint)
    return signers


def approvers(lane: Lane, trusted: TrustedRoot) -> set[str]:
    """Return the hints of all keys registered to approve, and of none that does something else."""
    own = lane.roles[APPROVE].keyids if APPROVE in lane.roles else frozenset()
    others = {k for name, role in lane.roles.items() if name != APPROVE for k in role.keyids}
    return {
        hint
        for hint, key in trusted.keys.items()
        if (key.role == APPROVE or key.public.keyid in own) and key.public.keyid not in others
    }
