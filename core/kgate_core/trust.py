"""Whom a pod believes, for what, and until when: the verified trust metadata as domain values.

TUF carries it: a pinned root, then timestamp, snapshot and targets. What is kgate's own stands in
the field `kgate` of targets (signing keys, lanes with their floors, revocations) and of timestamp
(when it was issued, the head of the publication log). `load` follows the TUF client workflow over
bytes that somebody else fetched; it reads no file, no network and no clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from kgate_core import strictjson
from kgate_core.clock import read_time, write_time
from kgate_core.digest import Digest
from kgate_core.errors import InvalidInput, TrustError
from kgate_core.kernel import check_origin
from kgate_core.ondeny import EVERY, OnDeny, check_choices
from kgate_core.tuf import Metadata, Role, check_listed, parse_keys, walk_roots

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kgate_core.keys import PublicKey
    from kgate_core.timestamp import Authority

FIELD: Final = "kgate"
AUTHORITIES: Final = "timestampAuthorities"
CLOCK_SKEW: Final = timedelta(minutes=5)  # clocks of pods and mirrors that still count as equal
MAX_STALENESS: Final = timedelta(days=3660)  # for sites that get news once in years


class Mode(StrEnum):
    """What a pod does with a kernel that is not verified; later values are stricter."""

    OBSERVE = "observe"
    WARN = "warn"
    ENFORCE = "enforce"
    STRICT = "strict"

    @property
    def strictness(self) -> int:
        """Position from 0; a floor is a lower bound on it."""
        return list(Mode).index(self)


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key that may sign attestations, with the time in which its signatures count."""

    public: PublicKey
    valid_from: datetime
    valid_until: datetime
    role: str = ""
    """What it was registered for, such as `feed`. Lanes name the keys of their own roles."""


@dataclass(frozen=True, slots=True)
class Lane:
    """The signed floors of one lane: nothing in a pod's environment can go below them."""

    name: str
    mode: Mode
    roles: Mapping[str, Role]
    """Role name to keys and threshold; every one of them must have signed a VSA."""
    origins: frozenset[str]
    """Upstreams whose kernels this lane may carry."""
    policies: frozenset[Digest]
    """Digests of the policies whose decisions count."""
    soft_staleness: timedelta
    """Age of the timestamp from which it is reported."""
    hard_staleness: timedelta
    """Age of the timestamp from which nothing is loaded."""
    on_deny: Mapping[str, OnDeny] = field(default_factory=dict)
    """What becomes of a refused kernel, by `org/name` or `*`; a pod may only be stricter."""
    locks: Mapping[str, frozenset[Digest]] = field(default_factory=dict)
    """Digests of the locks that pods may use, by pool or `*`; empty: any lock, or none."""

    def allowed_locks(self, pool: str) -> frozenset[Digest]:
        """Return the locks that a pool of replicas may use: its own and everybody's."""
        return self.locks.get(EVERY, frozenset()) | self.locks.get(pool, frozenset())


@dataclass(frozen=True, slots=True)
class Revocation:
    """Why a key or a digest is not believed any more, and since when."""

    since: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class TrustedRoot:
    """Verified trust metadata. Built by `load` only; a value of this type has been checked."""

    site: str
    keys: Mapping[str, SigningKey]
    """By hint: base64 of the sha256 of the public key."""
    lanes: Mapping[str, Lane]
    revoked_keys: Mapping[str, Revocation]
    revoked_digests: Mapping[Digest, Revocation]
    issued: datetime
    expires: datetime
    versions: Versions
    log_head: str = ""
    """Head of the publication log, as the timestamp role signed it."""
    authorities: tuple[Authority, ...] = ()
    """Timestamp authorities that are believed about when something was signed."""

    def signers(self, role: str, now: datetime) -> dict[str, PublicKey]:
        """Return by hint the keys registered for a role whose signatures count at `now`.

        For statements that no lane asks for, such as feeds; of a lane's own roles `verify` knows
        more, for instance when something was signed.
        """
        return {
            hint: key.public
            for hint, key in self.keys.items()
            if key.role == role
            and key.public.keyid not in self.revoked_keys
            and key.valid_from - CLOCK_SKEW <= now < key.valid_until
        }

    def age(self, now: datetime) -> timedelta:
        """Return how long ago the mirror last vouched for this metadata."""
        return now - self.issued


@dataclass(frozen=True, slots=True)
class Versions:
    """The versions of the four documents; they may only grow."""

    root: int
    timestamp: int
    snapshot: int
    targets: int

    def check_not_older(self, seen: Versions) -> None:
        """Raise TrustError if any document is older than one seen before (rollback)."""
        for name in ("root", "timestamp", "snapshot", "targets"):
            if getattr(self, name) < getattr(seen, name):
                raise TrustError(
                    f"{name}.json version {getattr(self, name)} is older than version"
                    f" {getattr(seen, name)} seen before",
                    hint="somebody serves old trust metadata: ask who runs the mirror",
                )


@dataclass(frozen=True, slots=True)
class TrustDocuments:
    """The raw documents as a mirror serves, a cache keeps and a bundle carries them."""

    later_roots: Sequence[bytes]
    """Root versions after the pinned one, in order."""
    timestamp: bytes
    snapshot: bytes
    targets: bytes


def load(
    pinned_root: bytes, documents: TrustDocuments, *, now: datetime, seen: Versions | None = None
) -> TrustedRoot:
    """Verify all documents from the pinned root on (TUF 5.3 to 5.6).

    Raises TrustError if one is unsigned, expired, inconsistent or older than `seen`, and
    InvalidInput if one is malformed.
    """
    # 1. Root: from the pinned version step by step to the newest.
    root = walk_roots(pinned_root, documents.later_roots)
    root.metadata.check_not_expired(now)
    # 2. Timestamp names the snapshot, 3. the snapshot names the targets.
    timestamp = root.accept(documents.timestamp, "timestamp")
    timestamp.check_not_expired(now)
    snapshot = root.accept(documents.snapshot, "snapshot")
    check_listed(timestamp, "snapshot.json", snapshot)
    snapshot.check_not_expired(now)
    targets = root.accept(documents.targets, "targets")
    check_listed(snapshot, "targets.json", targets)
    targets.check_not_expired(now)
    # 4. Nothing older than what was seen before.
    chain = (root.metadata, timestamp, snapshot, targets)
    versions = Versions(*(document.version for document in chain))
    if seen is not None:
        versions.check_not_older(seen)
    # 5. What the documents say.
    trusted = _read(timestamp, targets, versions, min(document.expires for document in chain))
    if trusted.issued > now + CLOCK_SKEW:
        raise TrustError(
            f"the trust metadata was issued at {write_time(trusted.issued)}, in the future",
            hint="check this machine's clock",
        )
    return trusted


def _read(
    timestamp: Metadata, targets: Metadata, versions: Versions, expires: datetime
) -> TrustedRoot:
    what = "trust metadata targets.json"
    own = strictjson.take(targets.fields, FIELD, dict, what=what)
    keys = _read_keys(strictjson.take(own, "keys", dict, what=what), what=what)
    revoked = strictjson.take(own, "revoked", dict, what=what)
    fresh = strictjson.take(timestamp.fields, FIELD, dict, what="trust metadata timestamp.json")
    return TrustedRoot(
        site=strictjson.take(own, "site", str, what=what),
        keys={key.public.hint: key for key in keys.values()},
        lanes={
            name: _read_lane(name, item, keys, what=f"{what}: lane {name}")
            for name, item in strictjson.take(own, "lanes", dict, what=what).items()
        },
        revoked_keys={
            keyid: _read_revocation(item, what=what)
            for keyid, item in strictjson.take(revoked, "keys", dict, what=what).items()
        },
        revoked_digests={
            Digest.parse(digest): _read_revocation(item, what=what)
            for digest, item in strictjson.take(revoked, "digests", dict, what=what).items()
        },
        issued=read_time(strictjson.take(fresh, "issued", str, what=what), what=what),
        expires=expires,
        versions=versions,
        log_head=strictjson.take(fresh, "logHead", str, what=what),
        authorities=_read_authorities(own, what=what),
    )


def _read_keys(data: dict[str, Any], *, what: str) -> dict[str, SigningKey]:
    public = parse_keys(data, what=what)
    for keyid, key in public.items():
        if keyid != key.keyid:
            raise InvalidInput(f"{what}: the key {keyid[:12]} does not bear its own id")
    return {
        keyid: SigningKey(
            key,
            read_time(strictjson.take(data[keyid], "validFrom", str, what=what), what=what),
            read_time(strictjson.take(data[keyid], "validUntil", str, what=what), what=what),
            strictjson.take(data[keyid], "role", str, what=what) if "role" in data[keyid] else "",
        )
        for keyid, key in public.items()
    }


def _read_authorities(own: dict[str, Any], *, what: str) -> tuple[Authority, ...]:
    if AUTHORITIES not in own:
        return ()  # optional: a site without one trusts no dates, and its pods do without ASN.1
    from kgate_core.timestamp import Authority  # noqa: PLC0415

    return tuple(
        Authority(
            strictjson.take(item, "name", str, what=what),
            strictjson.take(item, "publicKey", str, what=what),
            read_time(strictjson.take(item, "validFrom", str, what=what), what=what),
            read_time(strictjson.take(item, "validUntil", str, what=what), what=what),
        )
        for item in strictjson.take(own, AUTHORITIES, list, what=what)
    )


def _read_lane(
    name: str, data: dict[str, Any], keys: Mapping[str, SigningKey], *, what: str
) -> Lane:
    roles = {
        role: Role.from_json(item, what=f"{what}, role {role}")
        for role, item in strictjson.take(data, "roles", dict, what=what).items()
    }
    if not roles:
        raise InvalidInput(f"{what}: no role is required, so anybody could sign")
    named = [keyid for role in roles.values() for keyid in role.keyids]
    if unknown := sorted(set(named) - keys.keys()):
        raise InvalidInput(f"{what}: names the unknown key {unknown[0][:12]}")
    if len(set(named)) != len(named):
        # One person holding two roles could approve what they requested.
        raise InvalidInput(f"{what}: one key holds two roles")
    mode = strictjson.take(data, "mode", str, what=what)
    if mode not in set(Mode):
        raise InvalidInput(f"{what}: unknown mode {mode!r}; known are {', '.join(Mode)}")
    soft = strictjson.take(data, "softStalenessSeconds", int, what=what)
    hard = strictjson.take(data, "hardStalenessSeconds", int, what=what)
    if not 0 < soft <= hard <= MAX_STALENESS.total_seconds():
        raise InvalidInput(f"{what}: staleness of {soft} s (soft) and {hard} s (hard)")
    return Lane(
        name,
        Mode(mode),
        roles,
        frozenset(check_origin(o) for o in strictjson.take_strings(data, "origins", what=what)),
        frozenset(Digest.parse(d) for d in strictjson.take_strings(data, "policies", what=what)),
        timedelta(seconds=soft),
        timedelta(seconds=hard),
        check_choices(_optional(data, "onDeny", what), what=f"{what}: onDeny"),
        {
            pool: frozenset(
                Digest.parse(digest) for digest in strictjson.take_strings(locks, pool, what=what)
            )
            for locks in (_optional(data, "locks", what),)
            for pool in locks
        },
    )


def _optional(data: dict[str, Any], name: str, what: str) -> dict[str, Any]:
    """Return an object that documents of before this field do not have."""
    return strictjson.take(data, name, dict, what=what) if name in data else {}


def _read_revocation(data: strictjson.JsonValue, *, what: str) -> Revocation:
    return Revocation(
        read_time(strictjson.take(data, "since", str, what=what), what=what),
        strictjson.take(data, "reason", str, what=what),
    )
