"""Write trust metadata: which keys speak for a site, its lanes' floors, what is revoked.

The documents are TUF (specification 1.0.34), written through python-tuf's metadata API; what is
kgate's own stands in the field `kgate`, whose reader is `kgate_core.trust`. Versions only grow.
Two kinds of keys sign: *offline* ones (root, targets and snapshot) when something changes, and the
*online* timestamp key, which vouches every few minutes that this is the newest. A change therefore
counts once `refresh_timestamp` has followed it; that function reads everything back as a pod does
before it returns. Nothing here touches a disk.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import (  # type: ignore[attr-defined]  # re-exports without __all__
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    Targets,
    Timestamp,
)
from tuf.api.serialization import DeserializationError
from tuf.api.serialization.json import JSONSerializer

from kgate_core import strictjson
from kgate_core.clock import write_time
from kgate_core.errors import InvalidInput, TrustError
from kgate_core.trust import FIELD, TrustDocuments, TrustedRoot, load
from kgate_core.tuf import check_listed, walk_roots
from kgate_signer.devices import PortSigner, to_library_key
from kgate_signer.trustfields import key_to_own_json, lane_to_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from kgate_core.keys import PublicKey
    from kgate_core.trust import Lane, SigningKey
    from kgate_signer.keys import KeyProvider

ROOT_LIFETIME: Final = timedelta(days=365)
TARGETS_LIFETIME: Final = timedelta(days=180)  # of targets and snapshot, both signed offline
TIMESTAMP_LIFETIME: Final = timedelta(days=1)  # at least; never shorter than a lane's hard floor
KEY_LIFETIME: Final = timedelta(days=730)  # of a signing key, unless its owner says otherwise
SOFT_STALENESS: Final = timedelta(minutes=5)  # pods report older metadata
HARD_STALENESS: Final = timedelta(hours=24)  # pods refuse older metadata
REFRESH_EVERY: Final = timedelta(minutes=1)  # how often a serving process signs the timestamp

_T = TypeVar("_T", Root, Timestamp, Snapshot, Targets)


@dataclass(frozen=True, slots=True)
class RootKeys:
    """The public keys that a root names, and how many of each must agree."""

    root: tuple[PublicKey, ...]
    targets: tuple[PublicKey, ...]
    """Sign targets and snapshot; may be the root keys."""
    timestamp: tuple[PublicKey, ...]
    root_threshold: int = 1
    targets_threshold: int = 1


@dataclass(frozen=True, slots=True)
class TrustSet:
    """All trust documents of a site as they are stored and served; unverified until loaded."""

    roots: tuple[bytes, ...]
    """Every root from version 1 on, in order."""
    timestamp: bytes
    snapshot: bytes
    targets: bytes

    @property
    def files(self) -> dict[str, bytes]:
        """The documents by file name, as the mirror serves them: `1.root.json` and so on."""
        roots = {f"{number}.root.json": data for number, data in enumerate(self.roots, start=1)}
        return roots | {
            "timestamp.json": self.timestamp,
            "snapshot.json": self.snapshot,
            "targets.json": self.targets,
        }

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> TrustSet:
        """Read what `files` wrote; raises TrustError if one is missing."""
        count = sum(1 for name in files if name.endswith(".root.json"))
        names = [f"{number}.root.json" for number in range(1, max(count, 1) + 1)]
        names += ["timestamp.json", "snapshot.json", "targets.json"]
        for name in names:
            if name not in files:
                raise TrustError(f"trust document {name} is missing")
        *roots, timestamp, snapshot, targets = (files[name] for name in names)
        return cls(tuple(roots), timestamp, snapshot, targets)

    def since(self, root_version: int) -> TrustDocuments:
        """Return what somebody needs who pinned this root version."""
        return TrustDocuments(
            self.roots[root_version:], self.timestamp, self.snapshot, self.targets
        )

    def load(self, now: datetime) -> TrustedRoot:
        """Verify everything from the first root on; raises TrustError as a pod would."""
        return load(self.roots[0], self.since(1), now=now)


@dataclass(frozen=True, slots=True)
class Offline:
    """What a person brings who changes trust: the root they pinned, and private keys."""

    pinned_root: bytes
    keys: tuple[KeyProvider, ...]
    drafting: TrustSet | None = None
    """For a change that others may still have to sign: the documents it starts from."""


def create(
    site: str,
    lanes: Sequence[Lane],
    signing_keys: Sequence[SigningKey],
    root_keys: RootKeys,
    *,
    offline: Sequence[KeyProvider],
    timestamp: KeyProvider,
    now: datetime,
) -> TrustSet:
    """Write version 1 of all documents.

    `offline` are the private keys for root, targets and snapshot. Raises TrustError if they do
    not reach the thresholds, InvalidInput or TrustError if a pod could not read the result.
    """
    root = Metadata(_root(root_keys, 1, now))
    targets = Metadata(Targets(1, expires=now + TARGETS_LIFETIME))
    targets.signed.unrecognized_fields[FIELD] = {
        "site": site,
        "keys": {key.public.keyid: key_to_own_json(key) for key in signing_keys},
        "lanes": {lane.name: lane_to_json(lane) for lane in lanes},
        "revoked": {"keys": {}, "digests": {}},
    }
    snapshot = Metadata(Snapshot(1, expires=now + TARGETS_LIFETIME))
    trust = TrustSet(
        (_sign(root, root.signed, offline),),
        b"",
        _sign(snapshot, root.signed, offline),
        _sign(targets, root.signed, offline),
    )
    return _with_timestamp(trust, 1, "", timestamp, now)


def refresh_timestamp(
    trust: TrustSet,
    key: KeyProvider,
    *,
    now: datetime,
    log_head: str | None = None,
    at_least: int = 0,
) -> TrustSet:
    """Vouch that these documents are the newest; keeps the log's head if none is given.

    The version is the next one, or `at_least` that: after a loss nobody knows how many there were.

    Reads everything back as a pod does: raises TrustError or InvalidInput if a pod would refuse.
    """
    previous = read_document(trust.timestamp, Timestamp).signed
    if log_head is None:
        log_head = strictjson.take(_own(previous), "logHead", str, what="timestamp.json")
    version = max(previous.version + 1, at_least)
    return _with_timestamp(trust, version, log_head, key, now)


def change_targets(
    trust: TrustSet, change: Callable[[dict[str, Any]], None], by: Offline, *, now: datetime
) -> TrustSet:
    """Sign the next targets and snapshot after `change` edited kgate's own field.

    What is there already is verified from the root that the person pinned: nobody can slip
    something under their signature by editing stored documents.
    """
    check_authentic(by.drafting or trust, by.pinned_root)
    root = read_document(trust.roots[-1], Root).signed
    targets = read_document(trust.targets, Targets)
    change(_own(targets.signed))
    return sign_targets(trust, root, targets, by, now=now)


def sign_targets(
    trust: TrustSet,
    root: Root,
    targets: Metadata[Targets],
    by: Offline,
    *,
    now: datetime,
) -> TrustSet:
    """Return the set with the next version of targets and of the snapshot that names it."""
    snapshot = read_document(trust.snapshot, Snapshot)
    targets.signed.version += 1
    snapshot.signed.version += 1
    snapshot.signed.meta["targets.json"] = MetaFile(targets.signed.version)
    for document in (targets, snapshot):
        document.signed.expires = now + TARGETS_LIFETIME
    return replace(
        trust,
        targets=_sign(targets, root, by.keys, draft=by.drafting),
        snapshot=_sign(snapshot, root, by.keys, draft=by.drafting),
    )


def sign_root(trust: TrustSet, root_keys: RootKeys, by: Offline, *, now: datetime) -> TrustSet:
    """Return the set with the next root, which the old and the new root keys must both sign."""
    old = read_document(trust.roots[-1], Root).signed
    new = Metadata(_root(root_keys, old.version + 1, now))
    data = _sign(new, new.signed, by.keys, also=old, draft=by.drafting)
    return replace(trust, roots=(*trust.roots, data))


def check_authentic(trust: TrustSet, pinned_root: bytes) -> None:
    """Raise TrustError unless the stored documents descend from this root; ignores their age."""
    pinned = read_document(pinned_root, Root).signed
    if trust.roots[pinned.version - 1 : pinned.version] != (pinned_root,):
        raise TrustError(
            f"the stored root version {pinned.version} is not the pinned one",
            hint="nothing was signed: find out who changed the trust documents",
        )
    root = walk_roots(pinned_root, trust.roots[pinned.version :])
    snapshot = root.accept(trust.snapshot, "snapshot")
    check_listed(snapshot, "targets.json", root.accept(trust.targets, "targets"))


def read_document(data: bytes, kind: type[_T]) -> Metadata[_T]:
    """Parse one document with python-tuf; raises TrustError."""
    try:
        document = Metadata[_T].from_bytes(data)
    except (DeserializationError, RepositoryError) as exc:
        raise TrustError(f"{kind.type}.json cannot be read as trust metadata") from exc
    if not isinstance(document.signed, kind):
        raise TrustError(f"{kind.type}.json holds a {document.signed.type} document")
    return document


def _root(keys: RootKeys, version: int, now: datetime) -> Root:
    root = Root(version, expires=now + ROOT_LIFETIME, consistent_snapshot=False)
    roles = {
        "root": (keys.root, keys.root_threshold),
        "targets": (keys.targets, keys.targets_threshold),
        "snapshot": (keys.targets, keys.targets_threshold),
        "timestamp": (keys.timestamp, 1),
    }
    for name, (publics, threshold) in roles.items():
        if not 1 <= threshold <= len(set(publics)):
            raise InvalidInput(f"role {name}: {threshold} of {len(publics)} keys can never agree")
        for public in publics:
            root.add_key(to_library_key(public), name)
        root.roles[name].threshold = threshold
    return root


def _sign(
    document: Metadata[_T],
    root: Root,
    keys: Sequence[KeyProvider],
    *,
    also: Root | None = None,
    draft: TrustSet | None = None,
) -> bytes:
    """Sign with those keys that hold the role; unless it is a draft, they must be enough."""
    role = document.signed.type
    authorities = [root] if also is None else [root, also]
    wanted = {keyid for authority in authorities for keyid in authority.roles[role].keyids}
    document.signatures.clear()
    for key in keys:
        if key.public_key().keyid in wanted:
            # Not through `document.sign`, which wraps a device's error in its own.
            signature = PortSigner(key).sign(document.signed_bytes)
            document.signatures[signature.keyid] = signature
    try:
        for authority in authorities if draft is None else ():
            authority.verify_delegate(role, document.signed_bytes, document.signatures)
    except RepositoryError as exc:
        raise TrustError(
            f"{role}.json version {document.signed.version} lacks signatures: {exc}",
            hint=f"bring enough private keys of the role {role!r}",
        ) from exc
    return document.to_bytes(JSONSerializer(compact=False))


def _own(signed: Timestamp | Targets) -> dict[str, Any]:
    return strictjson.take(
        signed.unrecognized_fields, FIELD, dict, what=f"trust metadata {signed.type}.json"
    )


def _with_timestamp(
    trust: TrustSet, version: int, log_head: str, key: KeyProvider, now: datetime
) -> TrustSet:
    root = read_document(trust.roots[-1], Root).signed
    snapshot = read_document(trust.snapshot, Snapshot).signed
    own = _own(read_document(trust.targets, Targets).signed)
    what = "targets.json"
    floors = [
        timedelta(seconds=strictjson.take(lane, "hardStalenessSeconds", int, what=what))
        for lane in strictjson.take(own, "lanes", dict, what=what).values()
    ]
    timestamp = Metadata(
        Timestamp(
            version,
            expires=now + max(TIMESTAMP_LIFETIME, *floors),
            snapshot_meta=MetaFile(snapshot.version),
            unrecognized_fields={FIELD: {"issued": write_time(now), "logHead": log_head}},
        )
    )
    written = replace(trust, timestamp=_sign(timestamp, root, [key]))
    written.load(now)
    return written
