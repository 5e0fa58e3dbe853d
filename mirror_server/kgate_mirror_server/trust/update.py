"""Bring the signed trust metadata in line with kgate.yaml: lanes, upstreams, policies.

A person runs this where the root key is, after reading what changes. Pods follow by themselves
because the new documents descend from the root that they pin. Nothing is revoked here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from kgate_core.errors import InvalidInput
from kgate_core.trust import Lane, Mode
from kgate_core.tuf import Role
from kgate_mirror_server.trust.files import changing, read_pinned, read_trust, write_trust
from kgate_mirror_server.trust.floors import floor_changes, floors_of
from kgate_mirror_server.trust.founding import ADMIT
from kgate_mirror_server.trust.pending import wait_if_incomplete
from kgate_mirror_server.trust.withheld import read_withheld, release
from kgate_signer.cosigning import Pending
from kgate_signer.trustchanges import add_authority, revoke_digest, set_lane
from kgate_signer.trustwriter import (
    HARD_STALENESS,
    SOFT_STALENESS,
    Offline,
    TrustSet,
    refresh_timestamp,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from kgate_core.timestamp import Authority
    from kgate_core.trust import TrustedRoot
    from kgate_mirror_server.app import Mirror
    from kgate_signer.keys import KeyProvider

NEEDS_APPROVAL = "production"
"""The lane that also needs a signature held by a human."""
APPROVE = "approve"


@dataclass(frozen=True, slots=True)
class Change:
    """One change to a lane, as a sentence for people."""

    lane: str
    what: str


def plan_update(mirror: Mirror, now: datetime, *, only: bool) -> tuple[list[Lane], list[Change]]:
    """Return the lanes as they would be, and what differs from today.

    With `only`, what kgate.yaml does not name any more is taken out; else it stays.
    """
    config = mirror.config
    trusted = mirror.trusted(now)
    lanes: list[Lane] = []
    changes: list[Change] = []
    named = {config.lane, *config.lanes, *(config.lane_of(pin) for pin in config.kernels)}
    for name in sorted(named):
        before = trusted.lanes.get(name) or _new_lane(mirror, trusted, name)
        if name not in trusted.lanes:
            roles = " and ".join(sorted(before.roles))
            changes.append(Change(name, f"is new; it needs the signatures of {roles}"))
        kept = (frozenset(), frozenset()) if only else (before.origins, before.policies)
        after = replace(
            before,
            origins=kept[0] | config.origins(name),
            policies=kept[1] | {mirror.rules.of(name).digest},
            **floors_of(config, name),
        )
        changes += [
            Change(name, f"allows kernels from {o}") for o in after.origins - before.origins
        ]
        changes += [
            Change(name, f"refuses kernels from {o}") for o in before.origins - after.origins
        ]
        changes += [Change(name, f"counts policy {p}") for p in after.policies - before.policies]
        changes += [Change(name, f"ignores policy {p}") for p in before.policies - after.policies]
        changes += [Change(name, what) for what in floor_changes(before, after)]
        if after != trusted.lanes.get(name):
            lanes.append(after)
    waiting = read_withheld(config.path(config.trust))
    changes += [Change("*", f"revokes {d}: {i.revocation.reason}") for d, i in waiting.items()]
    if (authority := _new_authority(mirror, trusted, now)) is not None:
        changes.append(Change("*", f"believes the timestamps of {authority.name}"))
    return lanes, changes


def apply_update(mirror: Mirror, lanes: list[Lane], now: datetime) -> None:
    """Sign and write lanes, timestamp authority and revocations that waited for the root key.

    Needs the root key and the timestamp key.
    """
    folder = mirror.config.path(mirror.config.trust)
    signed = mirror.signed_trust(now).revoked_digests
    waiting = read_withheld(folder)
    authority = _new_authority(mirror, mirror.trusted(now), now)

    def change(trust: TrustSet, by: Offline) -> TrustSet:
        if authority is not None:
            trust = add_authority(trust, authority, by, now=now)
        for lane in lanes:
            trust = set_lane(trust, lane, by, now=now)
        for digest, item in waiting.items():
            if digest not in signed:
                trust = revoke_digest(trust, digest, item.revocation.reason, by, now=now)
        return trust

    sign_change(mirror, change, now)
    release(folder, waiting)


def sign_change(
    mirror: Mirror,
    change: Callable[[TrustSet, Offline], TrustSet],
    now: datetime,
    *,
    also: tuple[KeyProvider, ...] = (),
    online: KeyProvider | None = None,
) -> None:
    """Let a person change the trust metadata and vouch for it; needs root and timestamp keys.

    `also` are further keys of the root that are here, `online` a timestamp key that the change
    itself brings in. Raises WaitsForSignatures, and changes nothing, where more holders of the
    root must sign than are here.
    """
    folder = mirror.config.path(mirror.config.trust)
    keys = (mirror.key(mirror.config.keys.root), *also)
    timestamp = online or mirror.key(mirror.config.keys.timestamp)
    with changing(folder):
        before = read_trust(folder)
        drafted = change(before, Offline(read_pinned(folder), keys, before))
        wait_if_incomplete(folder, Pending(before, drafted))
        write_trust(folder, refresh_timestamp(drafted, timestamp, now=now))


def _new_authority(mirror: Mirror, trusted: TrustedRoot, now: datetime) -> Authority | None:
    """Return the configured timestamp authority if pods do not believe it yet."""
    found = mirror.authority(now)
    if found is None or any(known.pem == found.pem for known in trusted.authorities):
        return None
    return found


def _new_lane(mirror: Mirror, trusted: TrustedRoot, name: str) -> Lane:
    admit = mirror.key(mirror.config.keys.admit).public_key()
    roles = {ADMIT: Role(frozenset({admit.keyid}), 1)}
    if name == NEEDS_APPROVAL:
        roles[APPROVE] = Role(_approvers(trusted), 1)
    return Lane(name, Mode.ENFORCE, roles, frozenset(), frozenset(), SOFT_STALENESS, HARD_STALENESS)


def _approvers(trusted: TrustedRoot) -> frozenset[str]:
    made = {key.public.keyid for key in trusted.keys.values() if key.role == APPROVE}
    keyids = made - set(trusted.revoked_keys)
    if not keyids:
        raise InvalidInput(
            f"the lane {NEEDS_APPROVAL!r} needs a second, human-held signature, and no key is known"
            " that could give it",
            hint="make one with `kgate keys generate approve`, or register somebody's public key"
            " with `kgate keys add approve FILE`",
        )
    return frozenset(keyids)
