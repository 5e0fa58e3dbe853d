"""The checks that every signed statement about a variant goes through, whatever it states.

Each compares one thing, notes the step that passed and raises `Refusal` otherwise. Which
statements are looked at, and what follows from them, is `verify`'s and `breakglass`' work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kgate_core.clock import write_time
from kgate_core.statement import subjects_of
from kgate_core.trust import CLOCK_SKEW
from kgate_core.verdict import Reason, Refusal

if TYPE_CHECKING:
    from datetime import datetime

    from kgate_core.bundle import Bundle
    from kgate_core.kernel import KernelId
    from kgate_core.manifest import Manifest
    from kgate_core.statement import Statement
    from kgate_core.trust import Lane, TrustedRoot
    from kgate_core.verdict import Expected, Trace


def check_signature(bundle: Bundle, trusted: TrustedRoot, now: datetime, trace: Trace) -> None:
    """Find the key that the hint names and check its time, its revocation and the signature."""
    key = trusted.keys.get(bundle.hint)
    if key is None:
        raise Refusal(
            Reason.UNKNOWN_KEY, f"signed by the key {bundle.hint}, which is not trusted here"
        )
    # Only an independent authority can tell that something was signed before a key was stolen or
    # ran out: dates inside the statement are the signer's own claim.
    seen = _seen(bundle, trusted)
    if seen is not None and seen > now + CLOCK_SKEW:
        seen = None
    revoked = trusted.revoked_keys.get(key.public.keyid)
    if revoked is not None and (seen is None or seen >= revoked.since):
        raise Refusal(
            Reason.REVOKED_KEY,
            f"the key {bundle.hint} is revoked since {write_time(revoked.since)}: {revoked.reason}",
        )
    if not key.valid_from - CLOCK_SKEW <= (seen or now) < key.valid_until:
        raise Refusal(
            Reason.EXPIRED,
            f"the key {bundle.hint} is valid from {write_time(key.valid_from)}"
            f" until {write_time(key.valid_until)}",
        )
    if not key.public.verify(bundle.envelope.signature, bundle.envelope.signed_bytes):
        raise Refusal(Reason.BAD_SIGNATURE, f"the signature is not one of the key {bundle.hint}")
    dated = "" if seen is None else f", not later than {write_time(seen)}"
    trace.passed(4, f"{key.public.algorithm} by {bundle.hint}{dated}")


def check_subjects(statement: Statement, manifest: Manifest, trace: Trace) -> None:
    """Compare the subjects with the manifest and its files, all of them and in order."""
    if statement.subjects != subjects_of(manifest):
        first = statement.subjects[0].digest
        raise Refusal(
            Reason.WRONG_SUBJECT,
            f"the statement is about {first} with {len(statement.subjects)} subjects,"
            f" the files here are {manifest.digest}",
        )
    trace.passed(5, f"{manifest.digest} and {len(manifest.files)} files")


def check_identity(kernel: KernelId, expected: Expected, lane: Lane, trace: Trace) -> None:
    """Compare repository type, name, revision and variant, and the origin with the lane's."""
    asked = (
        ("repository type", expected.repo_type, kernel.repo_type),
        ("repository", expected.repo, kernel.repo),
        ("revision", expected.revision, kernel.revision),
        ("variant", expected.variant, kernel.variant),
    )
    for name, wanted, signed in asked:
        if wanted is not None and wanted != signed:
            raise Refusal(
                Reason.WRONG_IDENTITY, f"asked for {name} {wanted}, the statement is about {signed}"
            )
    if kernel.origin not in lane.origins:
        raise Refusal(
            Reason.WRONG_IDENTITY,
            f"the origin {kernel.origin} is not one of lane {lane.name}: {sorted(lane.origins)}",
        )
    trace.passed(6, kernel.purl)


def _seen(bundle: Bundle, trusted: TrustedRoot) -> datetime | None:
    if not bundle.timestamps or not trusted.authorities:
        return None
    # Reads ASN.1: most pods know of no authority and start without it.
    from kgate_core.timestamp import signed_before  # noqa: PLC0415

    return signed_before(bundle.timestamps, bundle.envelope.signature, trusted.authorities)
