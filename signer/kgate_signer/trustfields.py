"""kgate's own field of the trust metadata: keys, roles and lanes as JSON.

The reader of the same is `kgate_core.trust`. Nothing is signed here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kgate_core.clock import write_time
from kgate_core.errors import InvalidInput
from kgate_core.tuf import key_to_json

if TYPE_CHECKING:
    from kgate_core.trust import Lane, SigningKey
    from kgate_core.tuf import Role


def key_to_own_json(key: SigningKey) -> dict[str, Any]:
    """Return a signing key with its validity and role, as the field `kgate` holds it."""
    own = {"validFrom": write_time(key.valid_from), "validUntil": write_time(key.valid_until)}
    return key_to_json(key.public) | own | ({"role": key.role} if key.role else {})


def role_to_json(role: Role) -> dict[str, Any]:
    """Return a role as a JSON object; raises InvalidInput if nobody could fulfil it."""
    if not 1 <= role.threshold <= len(role.keyids):
        raise InvalidInput(f"{role.threshold} of {len(role.keyids)} keys can never agree")
    return {"keyids": sorted(role.keyids), "threshold": role.threshold}


def lane_to_json(lane: Lane) -> dict[str, Any]:
    """Return a lane's floors as a JSON object."""
    return {
        "mode": str(lane.mode),
        "roles": {name: role_to_json(role) for name, role in sorted(lane.roles.items())},
        "origins": sorted(lane.origins),
        "policies": sorted(str(digest) for digest in lane.policies),
        "softStalenessSeconds": int(lane.soft_staleness.total_seconds()),
        "hardStalenessSeconds": int(lane.hard_staleness.total_seconds()),
        **({"onDeny": _on_deny_to_json(lane)} if lane.on_deny else {}),
        **({"locks": _locks_to_json(lane)} if lane.locks else {}),
    }


def _on_deny_to_json(lane: Lane) -> dict[str, str]:
    return {name: str(choice) for name, choice in sorted(lane.on_deny.items())}


def _locks_to_json(lane: Lane) -> dict[str, list[str]]:
    return {pool: sorted(map(str, digests)) for pool, digests in sorted(lane.locks.items())}
