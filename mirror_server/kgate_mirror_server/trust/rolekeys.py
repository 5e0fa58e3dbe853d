"""The private keys of a site's roles: make, register, list, rotate and revoke them.

Every change is signed by the root key, so pods follow by themselves. A rotated key keeps its name
on the disk, so kgate.yaml stays as it is; the old file stays beside it under its id. Keys on
devices and other people's keys are registered by their public half. What a role may do is said by
the lanes of the trust metadata.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs

from kgate_core.errors import Conflict, InvalidInput, KgateError, NotFound, TrustError
from kgate_core.kernel import KernelId
from kgate_core.keys import Algorithm
from kgate_core.trust import SigningKey
from kgate_core.tuf import Root, walk_roots
from kgate_mirror_server.trust.approvals import kept_approvals
from kgate_mirror_server.trust.files import read_pinned, read_trust
from kgate_mirror_server.trust.founding import ADMIT, BACKDATED
from kgate_mirror_server.trust.pending import WaitsForSignatures
from kgate_mirror_server.trust.update import APPROVE, sign_change
from kgate_mirror_server.upkeep.shelf import publish
from kgate_signer.keys import FileKey, read_private_file, write_private_file
from kgate_signer.trustchanges import add_key, end_key, give_role, revoke_key, rotate_root
from kgate_signer.trustwriter import KEY_LIFETIME, RootKeys

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime, timedelta
    from pathlib import Path

    from kgate_core.keys import PublicKey
    from kgate_mirror_server.app import Mirror
    from kgate_mirror_server.ports import PublishedVariant
    from kgate_signer.trustwriter import Offline, TrustSet

BUNDLE: Final = "bundle"
INGEST: Final = "ingest"
FEED: Final = "feed"
SIGNING_ROLES: Final = (ADMIT, APPROVE, INGEST, BUNDLE, FEED)
TOP_ROLES: Final = ("root", "timestamp")
MIN_PREFIX: Final = 8  # hex digits that name a key
_SHORT: Final = 8  # hex digits of a key's id in a file's name


@dataclass(frozen=True, slots=True)
class KnownKey:
    """One key that the trust metadata names."""

    public: PublicKey
    roles: tuple[str, ...]
    """Such as `root`, or `experimental: admit`; empty if no lane asks for it."""
    valid_from: datetime | None
    """None for the keys of root and timestamp, which last until a new root replaces them."""
    valid_until: datetime | None
    revoked: str
    """Why it is not believed any more; empty if it is."""


@dataclass(frozen=True, slots=True)
class Rotation:
    """What became of a rotated key."""

    old: PublicKey
    new: PublicKey
    retired: Path
    """Where the old private key is now."""


def list_keys(mirror: Mirror, now: datetime) -> list[KnownKey]:
    """Return every key of the trust metadata with its roles and its time."""
    trusted, root = mirror.trusted(now), root_of(mirror)
    known = []
    for keyid, public in sorted(root.keys.items()):
        roles = tuple(name for name, role in sorted(root.roles.items()) if keyid in role.keyids)
        known.append(KnownKey(public, roles, None, None, ""))
    for key in sorted(trusted.keys.values(), key=lambda one: one.valid_from):
        keyid = key.public.keyid
        held = tuple(
            f"{lane.name}: {name}"
            for lane in trusted.lanes.values()
            for name, role in lane.roles.items()
            if keyid in role.keyids
        )
        revoked = trusted.revoked_keys.get(keyid)
        roles = held or ((key.role,) if key.role else ())
        reason = "" if revoked is None else revoked.reason
        known.append(KnownKey(key.public, roles, key.valid_from, key.valid_until, reason))
    return known


def generate(
    mirror: Mirror,
    role: str,
    passphrase: bytes | None,
    now: datetime,
    *,
    algorithm: Algorithm = Algorithm.ECDSA_P256,
) -> Path:
    """Make the private key of a role and register it; raises Conflict if there is one.

    Beside it lies its public half, as `ROLE.pub.pem`, for other tools and other machines.
    """
    if mirror.config.approved_algorithms and algorithm is not Algorithm.ECDSA_P256:
        raise InvalidInput(f"kgate.yaml allows approved algorithms only, not {algorithm}")
    path = _path(mirror, role)
    key = FileKey.generate(algorithm)
    write_private_file(path, key.to_pem(passphrase))
    try:
        register(mirror, role, key.public_key(), now)
    except WaitsForSignatures:
        _write_public(path, key.public_key())
        raise
    except KgateError:
        path.unlink()  # a key that nobody knows would only be in the way of the next attempt
        raise
    _write_public(path, key.public_key())
    return path


def register(mirror: Mirror, role: str, public: PublicKey, now: datetime) -> None:
    """Make a public key known for a role, in every lane that asks for that role."""
    if role not in SIGNING_ROLES:
        raise InvalidInput(f"no key signs as {role!r}; roles are {', '.join(SIGNING_ROLES)}")
    if public.keyid in root_of(mirror).keys:
        raise Conflict("this key is one of the root or timestamp role already")
    sign_change(mirror, lambda trust, by: _added(trust, role, public, by, now), now)


def rotate(mirror: Mirror, role: str, overlap: timedelta, now: datetime) -> Rotation:
    """Put a new key in the place of a role's key; a signing key counts for `overlap` more.

    Raises InvalidInput for keys that are no files: make those on the device and register them.
    """
    path, uri = _path(mirror, role), _uri(mirror, role)
    old = mirror.key(uri)
    before = old.public_key()
    new = FileKey.generate(before.algorithm)
    fresh = _beside(path, new.public_key())
    write_private_file(fresh, new.to_pem(_passphrase(mirror, path, uri)))
    try:
        if role in TOP_ROLES:
            _roll_root(mirror, role, before, new, now)
        else:

            def change(trust: TrustSet, by: Offline) -> TrustSet:
                trust = _added(trust, role, new.public_key(), by, now)
                return end_key(trust, before.keyid, now + overlap, by, now=now)

            sign_change(mirror, change, now)
    except WaitsForSignatures:
        raise  # the new key lies beside the old one until the change is published
    except KgateError:
        fresh.unlink()
        raise
    retired = _beside(path, before)
    try:
        os.link(path, retired)
        fresh.replace(path)  # at every moment the name holds one of the two
    except OSError as exc:
        raise KgateError(
            f"{path}: cannot be replaced ({exc.strerror})", hint=f"the new key is {fresh}"
        ) from exc
    _write_public(path, new.public_key())
    mirror.__dict__.pop("attestor", None)  # it was opened with the old key
    return Rotation(before, new.public_key(), retired)


def revoke(mirror: Mirror, prefix: str, reason: str, now: datetime) -> KnownKey:
    """Believe a signing key no more; raises NotFound, Conflict, and InvalidInput for root keys."""
    found = [key for key in list_keys(mirror, now) if key.public.keyid.startswith(prefix)]
    if len(prefix) < MIN_PREFIX or len(found) != 1:
        raise NotFound(
            f"{prefix!r} names no single key",
            hint=f"`kgate keys list` prints ids; {MIN_PREFIX} digits or more",
        )
    key = found[0]
    if key.valid_from is None:
        raise InvalidInput(
            f"{prefix} is a key of {', '.join(key.roles)}: those are replaced, not revoked",
            hint=f"kgate keys rotate {key.roles[0]}",
        )
    sign_change(
        mirror, lambda trust, by: revoke_key(trust, key.public.keyid, reason, by, now=now), now
    )
    return replace(key, revoked=reason)


def resign(mirror: Mirror, now: datetime) -> int:
    """Attest everything published anew with the present admit key; returns how many variants.

    Decisions stay as old as they are. Raises Conflict for one that is too old: sync it first. What
    a break-glass statement let in has no decision to sign.
    """
    count = 0
    for publication in mirror.catalog.publications():
        variants: list[PublishedVariant] = []
        for item in publication.variants:
            kernel = KernelId(
                publication.origin,
                publication.repo_type,
                publication.repo,
                publication.served,
                item.variant,
            )
            if not mirror.room.decision(item.evidence).allowed:
                variants.append(item)
                continue
            approvals = kept_approvals(mirror, kernel, publication.lane, item.manifest, now)
            attestor = mirror.attestor_for(item.manifest, now)
            signed = attestor.attest(kernel, publication.lane, item.manifest, now)
            decision, *others = (mirror.room.keep(bundle) for bundle in signed.bundles)
            variants.append(replace(item, bundles=(decision, *approvals, *others)))
            count += 1
        publish(mirror, replace(publication, variants=tuple(variants)))
    return count


def renew_documents(mirror: Mirror, now: datetime) -> None:
    """Sign root, targets and snapshot for another term, whether or not they have run out.

    The keys stay the same, and pods follow from any root they pinned. Raises TrustError without
    the root key and the timestamp key.
    """
    keys = keys_of(root_of(mirror), {})
    sign_change(mirror, lambda trust, by: rotate_root(trust, keys, by, now=now), now)


def keys_of(root: Root, replaced: Mapping[str, PublicKey]) -> RootKeys:
    """Return the keys of a root with some of them replaced, by id."""

    def holders(name: str) -> tuple[PublicKey, ...]:
        return tuple(replaced.get(k, root.keys[k]) for k in sorted(root.roles[name].keyids))

    return RootKeys(
        holders("root"),
        holders("targets"),
        holders("timestamp"),
        root.roles["root"].threshold,
        root.roles["targets"].threshold,
    )


def _added(trust: TrustSet, role: str, public: PublicKey, by: Offline, now: datetime) -> TrustSet:
    key = SigningKey(public, now - BACKDATED, now + KEY_LIFETIME, role)
    trust = add_key(trust, key, by, now=now)
    return give_role(trust, public.keyid, role, by, now=now)


def _roll_root(mirror: Mirror, role: str, before: PublicKey, new: FileKey, now: datetime) -> None:
    root = root_of(mirror)
    if before.keyid not in root.roles[role].keyids:
        raise TrustError(f"the configured {role} key is not one that the root names")
    wanted = keys_of(root, {before.keyid: new.public_key()})
    sign_change(
        mirror,
        lambda trust, by: rotate_root(trust, wanted, by, now=now),
        now,
        also=(new,),
        online=new if role == "timestamp" else None,
    )


def root_of(mirror: Mirror) -> Root:
    """Return the newest root of this site; raises TrustError."""
    folder = mirror.config.path(mirror.config.trust)
    return walk_roots(read_pinned(folder), read_trust(folder).roots[1:])


def _uri(mirror: Mirror, role: str) -> str:
    keys = mirror.config.keys
    uris = {
        ADMIT: keys.admit,
        APPROVE: keys.approve,
        INGEST: keys.ingest or "file:keys/ingest.pem",
        BUNDLE: keys.bundle or "file:keys/bundle.pem",
        FEED: keys.feed or "file:keys/feed.pem",
        "root": keys.root,
        "timestamp": keys.timestamp,
    }
    if role not in uris:
        raise InvalidInput(f"no key signs as {role!r}; roles are {', '.join(uris)}")
    return uris[role]


def _path(mirror: Mirror, role: str) -> Path:
    uri = _uri(mirror, role)
    scheme, _, rest = uri.partition(":")
    if scheme != "file":
        raise InvalidInput(
            f"the key of {role} is on a device ({scheme}:)",
            hint=f"make a new key there, then `kgate keys add {role} PUBLIC.pem` and name it in"
            " kgate.yaml",
        )
    return mirror.config.path(rest.partition("?")[0].removeprefix("//"))


def _passphrase(mirror: Mirror, path: Path, uri: str) -> bytes | None:
    """Return what protects the present key, so that the next one is protected by it too."""
    if named := parse_qs(uri.partition("?")[2]).get("passphrase-file"):
        return read_private_file(str(mirror.config.path(named[0]))).removesuffix(b"\n")
    if b"ENCRYPTED" not in read_private_file(str(path)):
        return None
    return mirror.ask(path.name)


def _write_public(path: Path, public: PublicKey) -> None:
    path.with_suffix(".pub.pem").write_text(public.pem, encoding="ascii")


def _beside(path: Path, public: PublicKey) -> Path:
    return path.with_name(f"{path.stem}.{public.keyid[:_SHORT]}{path.suffix}")
