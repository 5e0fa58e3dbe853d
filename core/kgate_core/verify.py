"""Is this what was signed, for what is asked, by whom it must be? The answer is a `Verdict`.

`verify` takes a list of single-signature bundles and goes through numbered steps. It never raises
for a bad signature, a wrong binding or a malformed bundle: those are `Rejected`. Its caller must
still compare the files on disk with the manifest and make sure that those very bytes are what
runs; whether a kernel is wise to use is a policy's question, answered before anything was signed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kgate_core.bundle import Bundle
from kgate_core.checks import check_identity, check_signature, check_subjects
from kgate_core.clock import write_time
from kgate_core.errors import InvalidInput
from kgate_core.statement import PAYLOAD_TYPE, Statement
from kgate_core.trust import CLOCK_SKEW
from kgate_core.verdict import (
    Expected,
    Reason,
    Refusal,
    Rejected,
    Step,
    Trace,
    Verdict,
    Verified,
)
from kgate_core.vsa import PREDICATE_TYPE, Vsa

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from kgate_core.manifest import Manifest
    from kgate_core.trust import Lane, SigningKey, TrustedRoot
    from kgate_core.tuf import Role

__all__ = ["Expected", "Reason", "Rejected", "Step", "Verdict", "Verified", "verify"]

MAX_BUNDLES: Final = 64  # offered for one variant; three are needed at most today


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
    Where steps 3 to 8 came to nothing:
    9. Somebody asked for it and two others with the role approve let it in for some hours.
    """
    trace = Trace()
    step = 1
    try:
        lane = _check_lane(expected, trusted, now, trace)
        step = 2
        _check_revocations(manifest, trusted, trace)
        step = 3
        accepted, refusals = _check_bundles(expected, manifest, bundles, lane, trusted, now, trace)
        step = 8
        vsa, signers = _check_roles(lane, trusted.keys, accepted, refusals, trace)
    except Refusal as refusal:
        trace.failed(step, refusal.message)
        if step > _REVOCATIONS:
            return _break_glass(expected, manifest, bundles, trusted, now, refusal, trace)
        return Rejected(refusal.reason, refusal.message, tuple(trace.steps))
    return Verified(vsa, signers, tuple(trace.steps))


_REVOCATIONS: Final = 2  # up to this step nothing overrules a refusal


def _break_glass(  # private: one argument for each thing compared
    expected: Expected,
    manifest: Manifest,
    bundles: Sequence[bytes],
    trusted: TrustedRoot,
    now: datetime,
    refusal: Refusal,
    trace: Trace,
) -> Verdict:
    """Return what a break-glass statement makes of a refusal; without one, the refusal."""
    # Few refusals meet one, and every pod would pay for the import.
    from kgate_core.breakglass import Opened, open_glass  # noqa: PLC0415

    lane = trusted.lanes[expected.lane]
    match open_glass(expected, manifest, bundles[:MAX_BUNDLES], lane, trusted, now):
        case Opened(found, signers):
            trace.passed(
                9, f"until {write_time(found.until)} for {found.requested_by}: {found.reason}"
            )
            return Verified(found.to_vsa(), signers, tuple(trace.steps), found)
        case str(why):
            trace.failed(9, why)
            message = f"{refusal.message}; break-glass: {why}"
            return Rejected(refusal.reason, message, tuple(trace.steps))
        case _:
            return Rejected(refusal.reason, refusal.message, tuple(trace.steps))


def _check_lane(expected: Expected, trusted: TrustedRoot, now: datetime, trace: Trace) -> Lane:
    lane = trusted.lanes.get(expected.lane)
    if lane is None:
        raise Refusal(
            Reason.UNKNOWN_LANE,
            f"the trust metadata knows no lane {expected.lane!r}, only {sorted(trusted.lanes)}",
        )
    if now >= trusted.expires:
        raise Refusal(Reason.STALE, f"trust metadata expired at {write_time(trusted.expires)}")
    age = trusted.age(now)
    if age > lane.hard_staleness:
        raise Refusal(
            Reason.STALE,
            f"the trust metadata is {int(age.total_seconds())} s old; lane {lane.name} allows"
            f" {int(lane.hard_staleness.total_seconds())} s",
        )
    trace.passed(1, f"lane {lane.name}, issued {write_time(trusted.issued)}")
    return lane


def _check_revocations(manifest: Manifest, trusted: TrustedRoot, trace: Trace) -> None:
    named = [("the variant", manifest.digest)]
    named += [(entry.path, entry.digest) for entry in manifest.files]
    for name, digest in named:
        if found := trusted.revoked_digests.get(digest):
            raise Refusal(
                Reason.REVOKED,
                f"{name} ({digest}) is revoked since {write_time(found.since)}: {found.reason}",
            )
    trace.passed(2, f"none of {len(named)} digests is among {len(trusted.revoked_digests)}")


def _check_bundles(  # private: one argument for each thing that is compared
    expected: Expected,
    manifest: Manifest,
    bundles: Sequence[bytes],
    lane: Lane,
    trusted: TrustedRoot,
    now: datetime,
    trace: Trace,
) -> tuple[list[tuple[str, Vsa]], list[Refusal]]:
    """Return accepted VSAs with the hint of the key that signed, and why others were refused."""
    if not bundles:
        raise Refusal(Reason.NO_BUNDLE, "there is no attestation for this variant")
    if len(bundles) > MAX_BUNDLES:
        raise Refusal(Reason.MALFORMED, f"{len(bundles)} bundles are more than {MAX_BUNDLES}")
    accepted: list[tuple[str, Vsa]] = []
    refusals: list[Refusal] = []
    for number, data in enumerate(bundles, start=1):
        attempt = Trace()
        step = 3
        try:
            bundle = _parse(data)
            if bundle is None:
                continue  # a well-formed attestation of another kind: not a pod's business
            attempt.passed(3, f"bundle {number} of {len(bundles)}")
            step = 4
            check_signature(bundle, trusted, now, attempt)
            step = 5
            statement = Statement.parse(bundle.envelope.payload)
            check_subjects(statement, manifest, attempt)
            vsa = Vsa.from_predicate(statement.predicate)
            step = 6
            check_identity(vsa.kernel, expected, lane, attempt)
            step = 7
            _check_decision(vsa, manifest, lane, trusted, now, attempt)
        except InvalidInput as exc:
            refusal = Refusal(Reason.MALFORMED, exc.message)
        except Refusal as exc:
            refusal = exc
        else:
            accepted.append((bundle.hint, vsa))
            trace.steps += attempt.steps
            continue
        refusals.append(refusal)
        trace.steps += attempt.steps
        trace.failed(step, refusal.message)
    return accepted, refusals


def _parse(data: bytes) -> Bundle | None:
    bundle = Bundle.parse(data)
    if bundle.envelope.payload_type != PAYLOAD_TYPE:
        raise Refusal(
            Reason.MALFORMED, f"payload type {bundle.envelope.payload_type!r} is not in-toto's"
        )
    # Read before the signature is checked only to pass over SBOMs and the like; nothing of it
    # is believed, and a lie here can only make a bundle count for nothing.
    if Statement.parse(bundle.envelope.payload).predicate_type != PREDICATE_TYPE:
        return None
    return bundle


def _check_decision(  # private: one argument for each thing compared
    vsa: Vsa,
    manifest: Manifest,
    lane: Lane,
    trusted: TrustedRoot,
    now: datetime,
    trace: Trace,
) -> None:
    if vsa.manifest != manifest.digest:
        raise Refusal(Reason.WRONG_SUBJECT, f"decided about {vsa.manifest}, not this manifest")
    if vsa.lane != lane.name or vsa.site != trusted.site:
        raise Refusal(
            Reason.WRONG_LANE,
            f"decided for lane {vsa.lane} of {vsa.site}, asked for {lane.name} of {trusted.site}",
        )
    if not vsa.passed:
        raise Refusal(Reason.NOT_PASSED, "the decision is FAILED")
    if vsa.policy_digest not in lane.policies:
        raise Refusal(
            Reason.POLICY,
            f"decided by the policy {vsa.policy_digest}, which lane {lane.name} does not allow",
        )
    if not vsa.verified_at - CLOCK_SKEW <= now < vsa.valid_until:
        raise Refusal(
            Reason.EXPIRED,
            f"the decision of {write_time(vsa.verified_at)} counts until"
            f" {write_time(vsa.valid_until)}",
        )
    trace.passed(
        7,
        f"passed, policy {vsa.policy_digest}, until {write_time(vsa.valid_until)}",
    )


def _check_roles(
    lane: Lane,
    keys: Mapping[str, SigningKey],
    accepted: list[tuple[str, Vsa]],
    refusals: list[Refusal],
    trace: Trace,
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
            trace.passed(8, ", ".join(signers))
            vsas = (vsa for hint, vsa in group if hint in signed)
            return min(vsas, key=lambda vsa: vsa.valid_until), signers
        name = missing[0]
        lacking = (
            f"lane {lane.name} needs {lane.roles[name].threshold} signature(s) by the role"
            f" {name!r}, found {len(hints[name])}"
        )
    if len(claims) > 1:
        lacking += f"; the attestations make {len(claims)} different claims"
    raise Refusal(Reason.MISSING_ROLE, lacking + (f" ({refusals[0].message})" if refusals else ""))


def _claim(vsa: Vsa) -> tuple[object, ...]:
    """Return what all roles must agree on; policies and times may differ between them."""
    return (vsa.kernel, vsa.upstream_revision, vsa.metadata_id, vsa.depends)


def _holders(role: Role, keys: Mapping[str, SigningKey], group: list[tuple[str, Vsa]]) -> set[str]:
    return {hint for hint, _ in group if keys[hint].public.keyid in role.keyids}
