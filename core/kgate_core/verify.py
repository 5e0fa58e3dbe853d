"""Is this what was signed, for what is asked, by whom it must be? The answer is a `Verdict`.

`verify` takes a list of single-signature bundles and goes through numbered steps. It never raises
for a bad signature, a wrong binding or a malformed bundle: those are `Rejected`. Its caller must
still compare the files on disk with the manifest and make sure that those very bytes are what
runs; whether a kernel is wise to use is a policy's question, answered before anything was signed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from kgate_core.bundle import Bundle
from kgate_core.clock import write_time
from kgate_core.errors import InvalidInput
from kgate_core.kernel import KernelRef, RepoType, Revision
from kgate_core.statement import PAYLOAD_TYPE, Statement, subjects_of
from kgate_core.timestamp import signed_before
from kgate_core.trust import CLOCK_SKEW
from kgate_core.vsa import PREDICATE_TYPE, Vsa

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from kgate_core.manifest import Manifest
    from kgate_core.trust import Lane, SigningKey, TrustedRoot
    from kgate_core.tuf import Role

MAX_BUNDLES: Final = 64  # offered for one variant; two are needed at most today


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


@dataclass(frozen=True, slots=True)
class Rejected:
    """At least one step failed; `message` is a sentence for people."""

    reason: Reason
    message: str
    steps: tuple[Step, ...] = ()


Verdict = Verified | Rejected


class _Refusal(Exception):  # noqa: N818  # control flow inside this module, never leaves it
    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


@dataclass(slots=True)
class _Trace:
    steps: list[Step] = field(default_factory=list)

    def passed(self, number: int, name: str, detail: str) -> None:
        self.steps.append(Step(number, name, ok=True, detail=detail))


def verify(
    expected: Expected,
    manifest: Manifest,
    bundles: Sequence[bytes],
    trusted: TrustedRoot,
    *,
    now: datetime,
) -> Verdict:
    """Check attestations about one variant.

    1. The lane is known and the trust metadata is fresh enough for it.
    2. Neither the manifest nor one of its files is revoked.
    Then for each bundle:
    3. It is a well-formed key-signed bundle around an in-toto statement.
    4. A trusted key signed it while it was valid and not revoked; without a timestamp by an
       independent authority, that means now.
    5. Its subjects are exactly this manifest and its files.
    6. It names the repository, type, revision and variant asked for, from an allowed origin.
    7. It is a passed decision for this lane and site, under an allowed policy, still valid.
    Finally:
    8. Every role that the lane requires has signed the same claims with enough distinct keys.
    """
    trace = _Trace()
    step = 1
    try:
        lane = _check_lane(expected, trusted, now, trace)
        step = 2
        _check_revocations(manifest, trusted, trace)
        step = 3
        accepted, refusals = _check_bundles(expected, manifest, bundles, lane, trusted, now, trace)
        step = 8
        vsa, signers = _check_roles(lane, trusted.keys, accepted, refusals, trace)
    except _Refusal as refusal:
        failed = Step(step, _STEP_NAMES[step], ok=False, detail=refusal.message)
        return Rejected(refusal.reason, refusal.message, (*trace.steps, failed))
    return Verified(vsa, signers, tuple(trace.steps))


_STEP_NAMES: Final = {
    1: "trust metadata",
    2: "revocations",
    3: "bundle",
    4: "signature",
    5: "subjects",
    6: "identity",
    7: "decision",
    8: "roles",
}


def _check_lane(expected: Expected, trusted: TrustedRoot, now: datetime, trace: _Trace) -> Lane:
    lane = trusted.lanes.get(expected.lane)
    if lane is None:
        raise _Refusal(
            Reason.UNKNOWN_LANE,
            f"the trust metadata knows no lane {expected.lane!r}, only {sorted(trusted.lanes)}",
        )
    if now >= trusted.expires:
        raise _Refusal(Reason.STALE, f"trust metadata expired at {write_time(trusted.expires)}")
    age = trusted.age(now)
    if age > lane.hard_staleness:
        raise _Refusal(
            Reason.STALE,
            f"the trust metadata is {int(age.total_seconds())} s old; lane {lane.name} allows"
            f" {int(lane.hard_staleness.total_seconds())} s",
        )
    trace.passed(1, _STEP_NAMES[1], f"lane {lane.name}, issued {write_time(trusted.issued)}")
    return lane


def _check_revocations(manifest: Manifest, trusted: TrustedRoot, trace: _Trace) -> None:
    named = [("the variant", manifest.digest)]
    named += [(entry.path, entry.digest) for entry in manifest.files]
    for name, digest in named:
        if found := trusted.revoked_digests.get(digest):
            raise _Refusal(
                Reason.REVOKED,
                f"{name} ({digest}) is revoked since {write_time(found.since)}: {found.reason}",
            )
    trace.passed(
        2, _STEP_NAMES[2], f"none of {len(named)} digests is among {len(trusted.revoked_digests)}"
    )


def _check_bundles(  # private: one argument for each thing that is compared
    expected: Expected,
    manifest: Manifest,
    bundles: Sequence[bytes],
    lane: Lane,
    trusted: TrustedRoot,
    now: datetime,
    trace: _Trace,
) -> tuple[list[tuple[str, Vsa]], list[_Refusal]]:
    """Return accepted VSAs with the hint of the key that signed, and why others were refused."""
    if not bundles:
        raise _Refusal(Reason.NO_BUNDLE, "there is no attestation for this variant")
    if len(bundles) > MAX_BUNDLES:
        raise _Refusal(Reason.MALFORMED, f"{len(bundles)} bundles are more than {MAX_BUNDLES}")
    accepted: list[tuple[str, Vsa]] = []
    refusals: list[_Refusal] = []
    for number, data in enumerate(bundles, start=1):
        attempt = _Trace()
        step = 3
        try:
            bundle = _parse(data)
            if bundle is None:
                continue  # a well-formed attestation of another kind: not a pod's business
            attempt.passed(3, _STEP_NAMES[3], f"bundle {number} of {len(bundles)}")
            step = 4
            _check_signature(bundle, trusted, now, attempt)
            step = 5
            statement = Statement.parse(bundle.envelope.payload)
            _check_subjects(statement, manifest, attempt)
            vsa = Vsa.from_predicate(statement.predicate)
            step = 6
            _check_identity(vsa, expected, lane, attempt)
            step = 7
            _check_decision(vsa, manifest, lane, trusted, now, attempt)
        except InvalidInput as exc:
            refusal = _Refusal(Reason.MALFORMED, exc.message)
        except _Refusal as exc:
            refusal = exc
        else:
            accepted.append((bundle.hint, vsa))
            trace.steps += attempt.steps
            continue
        refusals.append(refusal)
        failed = Step(step, _STEP_NAMES[step], ok=False, detail=refusal.message)
        trace.steps += [*attempt.steps, failed]
    return accepted, refusals


def _parse(data: bytes) -> Bundle | None:
    bundle = Bundle.parse(data)
    if bundle.envelope.payload_type != PAYLOAD_TYPE:
        raise _Refusal(
            Reason.MALFORMED, f"payload type {bundle.envelope.payload_type!r} is not in-toto's"
        )
    # Read before the signature is checked only to pass over SBOMs and the like; nothing of it
    # is believed, and a lie here can only make a bundle count for nothing.
    if Statement.parse(bundle.envelope.payload).predicate_type != PREDICATE_TYPE:
        return None
    return bundle


def _check_signature(bundle: Bundle, trusted: TrustedRoot, now: datetime, trace: _Trace) -> None:
    key = trusted.keys.get(bundle.hint)
    if key is None:
        raise _Refusal(
            Reason.UNKNOWN_KEY, f"signed by the key {bundle.hint}, which is not trusted here"
        )
    # Only an independent authority can tell that something was signed before a key was stolen or
    # ran out: dates inside the statement are the signer's own claim.
    seen = signed_before(bundle.timestamps, bundle.envelope.signature, trusted.authorities)
    if seen is not None and seen > now + CLOCK_SKEW:
        seen = None
    revoked = trusted.revoked_keys.get(key.public.keyid)
    if revoked is not None and (seen is None or seen >= revoked.since):
        raise _Refusal(
            Reason.REVOKED_KEY,
            f"the key {bundle.hint} is revoked since {write_time(revoked.since)}: {revoked.reason}",
        )
    if not key.valid_from - CLOCK_SKEW <= (seen or now) < key.valid_until:
        raise _Refusal(
            Reason.EXPIRED,
            f"the key {bundle.hint} is valid from {write_time(key.valid_from)}"
            f" until {write_time(key.valid_until)}",
        )
    if not key.public.verify(bundle.envelope.signature, bundle.envelope.signed_bytes):
        raise _Refusal(Reason.BAD_SIGNATURE, f"the signature is not one of the key {bundle.hint}")
    dated = "" if seen is None else f", not later than {write_time(seen)}"
    trace.passed(4, _STEP_NAMES[4], f"{key.public.algorithm} by {bundle.hint}{dated}")


def _check_subjects(statement: Statement, manifest: Manifest, trace: _Trace) -> None:
    if statement.subjects != subjects_of(manifest):
        first = statement.subjects[0].digest
        raise _Refusal(
            Reason.WRONG_SUBJECT,
            f"the statement is about {first} with {len(statement.subjects)} subjects,"
            f" the files here are {manifest.digest}",
        )
    trace.passed(5, _STEP_NAMES[5], f"{manifest.digest} and {len(manifest.files)} files")


def _check_identity(vsa: Vsa, expected: Expected, lane: Lane, trace: _Trace) -> None:
    kernel = vsa.kernel
    asked = (
        ("repository type", expected.repo_type, kernel.repo_type),
        ("repository", expected.repo, kernel.repo),
        ("revision", expected.revision, kernel.revision),
        ("variant", expected.variant, kernel.variant),
    )
    for name, wanted, signed in asked:
        if wanted is not None and wanted != signed:
            raise _Refusal(
                Reason.WRONG_IDENTITY, f"asked for {name} {wanted}, the statement is about {signed}"
            )
    if kernel.origin not in lane.origins:
        raise _Refusal(
            Reason.WRONG_IDENTITY,
            f"the origin {kernel.origin} is not one of lane {lane.name}: {sorted(lane.origins)}",
        )
    trace.passed(6, _STEP_NAMES[6], kernel.purl)


def _check_decision(  # private: one argument for each thing compared
    vsa: Vsa,
    manifest: Manifest,
    lane: Lane,
    trusted: TrustedRoot,
    now: datetime,
    trace: _Trace,
) -> None:
    if vsa.manifest != manifest.digest:
        raise _Refusal(Reason.WRONG_SUBJECT, f"decided about {vsa.manifest}, not this manifest")
    if vsa.lane != lane.name or vsa.site != trusted.site:
        raise _Refusal(
            Reason.WRONG_LANE,
            f"decided for lane {vsa.lane} of {vsa.site}, asked for {lane.name} of {trusted.site}",
        )
    if not vsa.passed:
        raise _Refusal(Reason.NOT_PASSED, "the decision is FAILED")
    if vsa.policy_digest not in lane.policies:
        raise _Refusal(
            Reason.POLICY,
            f"decided by the policy {vsa.policy_digest}, which lane {lane.name} does not allow",
        )
    if not vsa.verified_at - CLOCK_SKEW <= now < vsa.valid_until:
        raise _Refusal(
            Reason.EXPIRED,
            f"the decision of {write_time(vsa.verified_at)} counts until"
            f" {write_time(vsa.valid_until)}",
        )
    trace.passed(
        7,
        _STEP_NAMES[7],
        f"passed, policy {vsa.policy_digest}, until {write_time(vsa.valid_until)}",
    )


def _check_roles(
    lane: Lane,
    keys: Mapping[str, SigningKey],
    accepted: list[tuple[str, Vsa]],
    refusals: list[_Refusal],
    trace: _Trace,
) -> tuple[Vsa, tuple[str, ...]]:
    """Return the agreed VSA that ends first, and who signed."""
    if refusals and not accepted:
        raise refusals[0]
    # Roles must have signed the same claims: else one key could lend another's approval to a
    # kernel, an id or dependencies that the other never saw.
    claims: dict[tuple[object, ...], list[tuple[str, Vsa]]] = {}
    for hint, vsa in accepted:
        claims.setdefault(_claim(vsa), []).append((hint, vsa))
    lacking = ""
    for group in claims.values() or ([],):
        hints = {name: _holders(role, keys, group) for name, role in sorted(lane.roles.items())}
        missing = [name for name in hints if len(hints[name]) < lane.roles[name].threshold]
        if not missing:
            signers = tuple(f"{name}:{hint}" for name in hints for hint in sorted(hints[name]))
            signed = set().union(*hints.values())
            trace.passed(8, _STEP_NAMES[8], ", ".join(signers))
            vsas = (vsa for hint, vsa in group if hint in signed)
            return min(vsas, key=lambda vsa: vsa.valid_until), signers
        name = missing[0]
        lacking = (
            f"lane {lane.name} needs {lane.roles[name].threshold} signature(s) by the role"
            f" {name!r}, found {len(hints[name])}"
        )
    if len(claims) > 1:
        lacking += f"; the attestations make {len(claims)} different claims"
    raise _Refusal(Reason.MISSING_ROLE, lacking + (f" ({refusals[0].message})" if refusals else ""))


def _claim(vsa: Vsa) -> tuple[object, ...]:
    """Return what all roles must agree on; policies and times may differ between them."""
    return (vsa.kernel, vsa.upstream_revision, vsa.metadata_id, vsa.depends)


def _holders(role: Role, keys: Mapping[str, SigningKey], group: list[tuple[str, Vsa]]) -> set[str]:
    return {hint for hint, _ in group if keys[hint].public.keyid in role.keyids}
