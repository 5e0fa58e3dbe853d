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
from kgate_mirror_server.founding import ADMIT
from kgate_mirror_server.trustfiles import read_pinned, read_trust, write_trust
from kgate_signer.trustchanges import set_lane
from kgate_signer.trustwriter import HARD_STALENESS, SOFT_STALENESS, Offline, refresh_timestamp

if TYPE_CHECKING:
    from datetime import datetime

    from kgate_mirror_server.app import Mirror

NEEDS_APPROVAL = "production"
"""The lane that also needs a signature held by a human; it is not made from kgate.yaml alone."""


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
    for name in sorted({config.lane, *(config.lane_of(pin) for pin in config.kernels)}):
        before = trusted.lanes.get(name) or _new_lane(mirror, name)
        if name not in trusted.lanes:
            changes.append(Change(name, "is new; it needs the role admit"))
        kept = (frozenset(), frozenset()) if only else (before.origins, before.policies)
        after = replace(
            before,
            origins=kept[0] | {config.upstream.identity},
            policies=kept[1] | {mirror.policy.digest},
        )
        changes += [
            Change(name, f"allows kernels from {o}") for o in after.origins - before.origins
        ]
        changes += [
            Change(name, f"refuses kernels from {o}") for o in before.origins - after.origins
        ]
        changes += [Change(name, f"counts policy {p}") for p in after.policies - before.policies]
        changes += [Change(name, f"ignores policy {p}") for p in before.policies - after.policies]
        if after != trusted.lanes.get(name):
            lanes.append(after)
    return lanes, changes


def apply_update(mirror: Mirror, lanes: list[Lane], now: datetime) -> None:
    """Sign and write the lanes; needs the root key and the timestamp key."""
    folder = mirror.config.path(mirror.config.trust)
    trust = read_trust(folder)
    offline = Offline(read_pinned(folder), (mirror.key(mirror.config.keys.root),))
    for lane in lanes:
        trust = set_lane(trust, lane, offline, now=now)
    timestamp = mirror.key(mirror.config.keys.timestamp)
    write_trust(folder, refresh_timestamp(trust, timestamp, now=now))


def _new_lane(mirror: Mirror, name: str) -> Lane:
    if name == NEEDS_APPROVAL:
        raise InvalidInput(
            f"the lane {name!r} needs a second, human-held signature and cannot be made from"
            " kgate.yaml alone",
            hint="use another lane name until this version knows `kgate approve`",
        )
    admit = mirror.key(mirror.config.keys.admit).public_key()
    return Lane(
        name,
        Mode.ENFORCE,
        {ADMIT: Role(frozenset({admit.keyid}), 1)},
        frozenset(),
        frozenset(),
        SOFT_STALENESS,
        HARD_STALENESS,
    )
