"""A small, strict reader of TUF metadata: signatures, roles, versions, expiry.

Follows the TUF specification 1.0.34, sections 4 (formats) and 5 (client workflow), for the four
top-level roles and nothing else: no delegations, no target files, no consistent snapshots. It
writes nothing: the server uses python-tuf for that. No network or disk: the bytes are handed in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from kgate_core import strictjson
from kgate_core.clock import read_time, write_time
from kgate_core.errors import InvalidInput, TrustError
from kgate_core.keys import Algorithm, PublicKey

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

MAX_METADATA: Final = 512_000  # bytes in one document, the reference client's own limit for roots
MAX_ROOT_STEPS: Final = 256  # root versions in one update, as the reference client allows
_SPEC_MAJOR: Final = "1"
_KEY_TYPES: Final = {
    ("ecdsa", "ecdsa-sha2-nistp256"): Algorithm.ECDSA_P256,
    ("ed25519", "ed25519"): Algorithm.ED25519,
}


@dataclass(frozen=True, slots=True)
class Role:
    """Which keys speak for a role, and how many of them must agree."""

    keyids: frozenset[str]
    threshold: int

    @classmethod
    def from_json(cls, data: strictjson.JsonValue, *, what: str) -> Role:
        """Read a role object; raises InvalidInput for an empty or unreachable threshold."""
        keyids = strictjson.take_strings(data, "keyids", what=what)
        threshold = strictjson.take(data, "threshold", int, what=what)
        if len(set(keyids)) != len(keyids):
            raise InvalidInput(f"{what}: a key stands twice")
        if not 1 <= threshold <= len(keyids):
            raise InvalidInput(f"{what}: threshold {threshold} with {len(keyids)} keys")
        return cls(frozenset(keyids), threshold)


@dataclass(frozen=True, slots=True)
class Metadata:
    """One signed document: its role, version, expiry, fields and signatures, not yet trusted."""

    role: str
    version: int
    expires: datetime
    fields: dict[str, Any]
    signed_bytes: bytes
    signatures: Mapping[str, bytes]

    @classmethod
    def parse(cls, data: bytes, role: str) -> Metadata:
        """Read a document of the named role; raises InvalidInput."""
        what = f"trust metadata {role}.json"
        document = strictjson.loads(data, what=what, max_bytes=MAX_METADATA)
        signed = strictjson.take(document, "signed", dict, what=what)
        if strictjson.take(signed, "_type", str, what=what) != role:
            raise InvalidInput(f"{what}: it is a {signed['_type']!r} document")
        spec = strictjson.take(signed, "spec_version", str, what=what)
        if spec.split(".")[0] != _SPEC_MAJOR:
            raise InvalidInput(f"{what}: TUF version {spec} is not supported")
        version = strictjson.take(signed, "version", int, what=what)
        if version < 1:
            raise InvalidInput(f"{what}: version {version}")
        return cls(
            role,
            version,
            read_time(strictjson.take(signed, "expires", str, what=what), what=what),
            signed,
            canonical(signed),
            _parse_signatures(document, what=what),
        )

    def check_signed_by(self, role: Role, keys: Mapping[str, PublicKey]) -> None:
        """Raise TrustError unless enough distinct keys of the role signed these bytes."""
        good = sum(
            1
            for keyid in role.keyids & self.signatures.keys()
            if keyid in keys and keys[keyid].verify(self.signatures[keyid], self.signed_bytes)
        )
        if good < role.threshold:
            raise TrustError(
                f"{self.role}.json version {self.version} has {good} valid signatures of the"
                f" {role.threshold} that its role needs",
                hint="fetch it again, or check that the pinned root is the right one",
            )

    def check_not_expired(self, now: datetime) -> None:
        """Raise TrustError if the document's time is over."""
        if now >= self.expires:
            raise TrustError(
                f"{self.role}.json version {self.version} expired at {write_time(self.expires)}",
                hint="check the clock; if it is right, "
                + (
                    "sign it anew with `kgate trust refresh`, or start the mirror"
                    if self.role == "timestamp"
                    else "sign it anew with `kgate trust renew` where the root key is"
                ),
            )


@dataclass(frozen=True, slots=True)
class Root:
    """A verified root: the keys of every top-level role."""

    metadata: Metadata
    keys: Mapping[str, PublicKey]
    roles: Mapping[str, Role]

    @classmethod
    def pinned(cls, data: bytes) -> Root:
        """Take a root on trust because a person pinned it; still checks that it signed itself."""
        root = cls._parse(data)
        root.metadata.check_signed_by(root.roles["root"], root.keys)
        return root

    def advance(self, data: bytes) -> Root:
        """Return the next root if both agree on it (section 5.3); raises TrustError."""
        following = self._parse(data)
        if following.metadata.version != self.metadata.version + 1:
            raise TrustError(
                f"root version {following.metadata.version} cannot follow {self.metadata.version}"
            )
        following.metadata.check_signed_by(self.roles["root"], self.keys)
        following.metadata.check_signed_by(following.roles["root"], following.keys)
        return following

    @classmethod
    def _parse(cls, data: bytes) -> Root:
        metadata = Metadata.parse(data, "root")
        what = "trust metadata root.json"
        keys = parse_keys(strictjson.take(metadata.fields, "keys", dict, what=what), what=what)
        found = strictjson.take(metadata.fields, "roles", dict, what=what)
        roles = {
            name: Role.from_json(
                strictjson.take(found, name, dict, what=what), what=f"{what}: role {name}"
            )
            for name in ("root", "timestamp", "snapshot", "targets")
        }
        return cls(metadata, keys, roles)

    def accept(self, data: bytes, role: str) -> Metadata:
        """Return a document that this root's keys for `role` signed; raises TrustError."""
        metadata = Metadata.parse(data, role)
        metadata.check_signed_by(self.roles[role], self.keys)
        return metadata


def walk_roots(pinned: bytes, later: Sequence[bytes]) -> Root:
    """Return the newest root reachable from the pinned one; raises TrustError, InvalidInput."""
    root = Root.pinned(pinned)
    if len(later) > MAX_ROOT_STEPS:
        raise TrustError(f"more than {MAX_ROOT_STEPS} root versions in one step")
    for data in later:
        root = root.advance(data)
    return root


def check_listed(listing: Metadata, name: str, document: Metadata) -> None:
    """Raise TrustError unless `listing` names exactly this version of `document` (5.5.5, 5.6.4)."""
    what = f"{listing.role}.json"
    meta = strictjson.take(listing.fields, "meta", dict, what=what)
    entry = strictjson.take(meta, name, dict, what=what)
    version = strictjson.take(entry, "version", int, what=f"{what}: {name}")
    if version != document.version:
        raise TrustError(f"{what} names {name} version {version}, found {document.version}")


def parse_keys(data: Mapping[str, Any], *, what: str) -> dict[str, PublicKey]:
    """Read a TUF key table; raises InvalidInput for unknown types and for one key under two ids."""
    keys: dict[str, PublicKey] = {}
    for keyid, item in data.items():
        name = f"{what}: key {keyid[:12]}"
        public = strictjson.take(
            strictjson.take(item, "keyval", dict, what=name), "public", str, what=name
        )
        kind = strictjson.take(item, "keytype", str, what=name)
        scheme = strictjson.take(item, "scheme", str, what=name)
        algorithm = _KEY_TYPES.get((kind, scheme))
        if algorithm is None:
            raise InvalidInput(f"{name}: {kind} with {scheme} is not supported")
        key = _parse_key(algorithm, public, what=name)
        if key.algorithm is not algorithm:
            raise InvalidInput(f"{name}: says {algorithm}, holds {key.algorithm}")
        keys[keyid] = key
    if len(set(keys.values())) != len(keys):
        # Two ids for one key would let one holder reach a threshold of two.
        raise InvalidInput(f"{what}: one key stands under two ids")
    return keys


def key_to_json(key: PublicKey) -> dict[str, Any]:
    """Return a key as TUF metadata writes it."""
    if key.algorithm is Algorithm.ED25519:
        # The last 32 bytes of an Ed25519 SubjectPublicKeyInfo are the key (RFC 8410 section 4).
        return {
            "keytype": "ed25519",
            "scheme": str(key.algorithm),
            "keyval": {"public": key.der[-32:].hex()},
        }
    return {"keytype": "ecdsa", "scheme": str(key.algorithm), "keyval": {"public": key.pem}}


def _parse_key(algorithm: Algorithm, public: str, *, what: str) -> PublicKey:
    if algorithm is Algorithm.ECDSA_P256:
        return PublicKey.from_pem(public)
    try:
        return PublicKey.from_ed25519_raw(bytes.fromhex(public))
    except ValueError as exc:
        raise InvalidInput(f"{what}: not hex") from exc


def _parse_signatures(document: strictjson.JsonValue, *, what: str) -> dict[str, bytes]:
    signatures: dict[str, bytes] = {}
    for item in strictjson.take(document, "signatures", list, what=what):
        keyid = strictjson.take(item, "keyid", str, what=what)
        if keyid in signatures:
            raise InvalidInput(f"{what}: the key {keyid[:12]} signed twice")
        try:
            signatures[keyid] = bytes.fromhex(strictjson.take(item, "sig", str, what=what))
        except ValueError as exc:
            raise InvalidInput(f"{what}: a signature is not hex") from exc
    return signatures


def canonical(value: strictjson.JsonValue) -> bytes:
    """Return OLPC canonical JSON, over which TUF signs: only quote and backslash are escaped."""
    return "".join(_canonical_parts(value)).encode("utf-8")


def _canonical_parts(value: strictjson.JsonValue) -> Iterable[str]:
    match value:
        case str():
            yield '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
        case True:
            yield "true"
        case False:
            yield "false"
        case None:
            yield "null"
        case int():
            yield str(value)
        case list():
            yield "["
            for index, item in enumerate(value):
                yield "," if index else ""
                yield from _canonical_parts(item)
            yield "]"
        case dict():
            yield "{"
            for index, key in enumerate(sorted(value)):
                yield "," if index else ""
                yield from _canonical_parts(key)
                yield ":"
                yield from _canonical_parts(value[key])
            yield "}"
        case _:
            raise InvalidInput(f"{type(value).__name__} cannot be written canonically")
