"""The changes that people make to trust: each one verb, signed offline, never half done.

Every function returns the next set of documents and leaves the old one as it was; a change counts
once `trustwriter.refresh_timestamp` has followed. Each first verifies what is stored from the root
that the person pinned. Which changes are wise is not decided here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tuf.api.metadata import (  # type: ignore[attr-defined]  # re-exports without __all__
    Root,
    Targets,
)

from kgate_core.clock import write_time
from kgate_core.errors import Conflict, InvalidInput, NotFound
from kgate_core.kernel import check_origin
from kgate_core.trust import AUTHORITIES
from kgate_signer.trustfields import key_to_own_json, lane_to_json
from kgate_signer.trustwriter import (
    RootKeys,
    change_targets,
    check_authentic,
    read_document,
    sign_root,
    sign_targets,
)

if TYPE_CHECKING:
    from datetime import datetime

    from kgate_core.digest import Digest
    from kgate_core.timestamp import Authority
    from kgate_core.trust import Lane, SigningKey
    from kgate_signer.trustwriter import Offline, TrustSet


def add_key(trust: TrustSet, key: SigningKey, by: Offline, *, now: datetime) -> TrustSet:
    """Make a signing key known, and for which role it was made; raises Conflict if it is known."""

    def change(own: dict[str, Any]) -> None:
        if key.public.keyid in own["keys"]:
            raise Conflict(f"the key {key.public.keyid} is known already")
        own["keys"][key.public.keyid] = key_to_own_json(key)

    return change_targets(trust, change, by, now=now)


def give_role(trust: TrustSet, keyid: str, role: str, by: Offline, *, now: datetime) -> TrustSet:
    """Let a known key speak for a role in every lane that has it; raises NotFound."""

    def change(own: dict[str, Any]) -> None:
        if keyid not in own["keys"]:
            raise NotFound(f"there is no signing key {keyid}")
        for lane in own["lanes"].values():
            if role in lane["roles"]:
                keyids = lane["roles"][role]["keyids"]
                keyids[:] = sorted({*keyids, keyid})

    return change_targets(trust, change, by, now=now)


def end_key(
    trust: TrustSet, keyid: str, until: datetime, by: Offline, *, now: datetime
) -> TrustSet:
    """Let a key run out at `until`, or when it would have anyway; raises NotFound."""

    def change(own: dict[str, Any]) -> None:
        if keyid not in own["keys"]:
            raise NotFound(f"there is no signing key {keyid}")
        entry = own["keys"][keyid]
        entry["validUntil"] = min(entry["validUntil"], write_time(until))

    return change_targets(trust, change, by, now=now)


def set_lane(trust: TrustSet, lane: Lane, by: Offline, *, now: datetime) -> TrustSet:
    """Add a lane, or replace all its floors; raises NotFound if it names an unknown key."""

    def change(own: dict[str, Any]) -> None:
        for role in lane.roles.values():
            if unknown := sorted(role.keyids - own["keys"].keys()):
                raise NotFound(
                    f"lane {lane.name} names the unknown key {unknown[0]}", hint="add it first"
                )
        own["lanes"][lane.name] = lane_to_json(lane)

    return change_targets(trust, change, by, now=now)


def add_policy(
    trust: TrustSet, lane: str, policy: Digest, by: Offline, *, now: datetime
) -> TrustSet:
    """Let decisions of this policy count in a lane; raises NotFound, Conflict."""
    return _add_to_lane(trust, lane, "policies", str(policy), by, now)


def remove_policy(
    trust: TrustSet, lane: str, policy: Digest, by: Offline, *, now: datetime
) -> TrustSet:
    """Let decisions of this policy count no more in a lane; raises NotFound."""

    def change(own: dict[str, Any]) -> None:
        policies = _lane(own, lane)["policies"]
        if str(policy) not in policies:
            raise NotFound(f"lane {lane} does not allow the policy {policy}")
        policies.remove(str(policy))

    return change_targets(trust, change, by, now=now)


def add_origin(trust: TrustSet, lane: str, origin: str, by: Offline, *, now: datetime) -> TrustSet:
    """Let a lane carry kernels of one more upstream; raises NotFound, Conflict."""
    return _add_to_lane(trust, lane, "origins", check_origin(origin), by, now)


def add_authority(trust: TrustSet, authority: Authority, by: Offline, *, now: datetime) -> TrustSet:
    """Believe a timestamp authority about when something was signed; raises Conflict."""

    def change(own: dict[str, Any]) -> None:
        known = own.setdefault(AUTHORITIES, [])
        if any(entry["publicKey"] == authority.pem for entry in known):
            raise Conflict(f"the timestamp authority {authority.name} is believed already")
        known.append(
            {
                "name": authority.name,
                "publicKey": authority.pem,
                "validFrom": write_time(authority.valid_from),
                "validUntil": write_time(authority.valid_until),
            }
        )

    return change_targets(trust, change, by, now=now)


def revoke_key(trust: TrustSet, keyid: str, reason: str, by: Offline, *, now: datetime) -> TrustSet:
    """Believe a signing key no more, whatever it signed and when; raises NotFound, Conflict."""

    def change(own: dict[str, Any]) -> None:
        if keyid not in own["keys"]:
            raise NotFound(f"there is no signing key {keyid}")
        _revoke(own["revoked"]["keys"], keyid, reason, now)

    return change_targets(trust, change, by, now=now)


def revoke_digest(
    trust: TrustSet, digest: Digest, reason: str, by: Offline, *, now: datetime
) -> TrustSet:
    """Let nothing with this digest load (a manifest, or any file in one); raises Conflict."""

    def change(own: dict[str, Any]) -> None:
        _revoke(own["revoked"]["digests"], str(digest), reason, now)

    return change_targets(trust, change, by, now=now)


def reinstate_digest(trust: TrustSet, digest: Digest, by: Offline, *, now: datetime) -> TrustSet:
    """Take a revocation of bytes back (that of a key stands for ever); raises NotFound."""

    def change(own: dict[str, Any]) -> None:
        if own["revoked"]["digests"].pop(str(digest), None) is None:
            raise NotFound(f"{digest} is not revoked")

    return change_targets(trust, change, by, now=now)


def renew(trust: TrustSet, by: Offline, *, now: datetime) -> TrustSet:
    """Sign targets and snapshot again as they are, with a new expiry."""
    return change_targets(trust, lambda _: None, by, now=now)


def rotate_root(trust: TrustSet, keys: RootKeys, by: Offline, *, now: datetime) -> TrustSet:
    """Replace the keys of root, targets, snapshot and timestamp (or renew the root's expiry).

    `by` brings enough of the old root keys and of all new offline ones. Pods that pinned any
    earlier root follow, one version at a time.
    """
    check_authentic(by.drafting or trust, by.pinned_root)
    rotated = sign_root(trust, keys, by, now=now)
    root = read_document(rotated.roots[-1], Root).signed
    # Targets signed by the old keys would not be accepted under the new root.
    return sign_targets(rotated, root, read_document(trust.targets, Targets), by, now=now)


def _add_to_lane(  # private: one argument for each thing said
    trust: TrustSet, lane: str, name: str, value: str, by: Offline, now: datetime
) -> TrustSet:
    def change(own: dict[str, Any]) -> None:
        values = _lane(own, lane)[name]
        if value in values:
            raise Conflict(f"lane {lane} has {value} already")
        values.append(value)
        values.sort()

    return change_targets(trust, change, by, now=now)


def _lane(own: dict[str, Any], lane: str) -> dict[str, Any]:
    found: dict[str, Any] | None = own["lanes"].get(lane)
    if found is None:
        raise NotFound(f"there is no lane {lane!r}; there are {sorted(own['lanes'])}")
    return found


def _revoke(table: dict[str, Any], name: str, reason: str, now: datetime) -> None:
    if not reason.strip():
        raise InvalidInput("a revocation needs a reason", hint="a CVE, a ticket or a sentence")
    if name in table:
        raise Conflict(f"{name} is revoked already, since {table[name]['since']}")
    table[name] = {"since": write_time(now), "reason": reason}
