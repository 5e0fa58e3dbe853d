"""Sites whose bundles this one takes: their pinned roots, and what was last seen of each.

A sender's `root.json` is pinned once by a person who compared it; the copy inside a bundle is never
believed. State lies beside it: the newest bundle and trust versions, below which nothing is taken
any more. Whether a sender's kernels may be used is this site's own policy's affair.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from kgate_core import strictjson
from kgate_core.clock import write_time
from kgate_core.digest import Digest
from kgate_core.errors import Conflict, InvalidInput, KgateError, TrustError
from kgate_core.keys import PublicKey
from kgate_core.trust import CLOCK_SKEW, TrustedRoot, Versions, load
from kgate_core.tuf import Metadata, Root
from kgate_mirror_server.bundle.document import BUNDLE, BundleDocument
from kgate_mirror_server.trust.files import replace_file
from kgate_signer.trustwriter import TrustSet

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from kgate_mirror_server.bundle.sealed import Sealed

SENDERS: Final = "senders"
RECEIVERS: Final = "receivers"
MAX_AGE: Final = timedelta(days=180)  # of a bundle; its trust documents expire then anyway
_STATE_SCHEMA: Final = "kgate.dev/sender/v1"


@dataclass(frozen=True, slots=True)
class Seen:
    """What was last taken from a sender; nothing older counts."""

    site: str
    versions: Versions
    sequence: int
    bundle: Digest
    publications: tuple[Digest, ...] = ()
    """What is held of it, for the receipt."""
    manifests: tuple[Digest, ...] = ()


@dataclass(frozen=True, slots=True)
class Sender:
    """A site whose root a person pinned."""

    folder: Path
    root: bytes

    @property
    def seen(self) -> Seen | None:
        """What was last taken from it, or None; raises InvalidInput if the state was edited."""
        path = self.folder / "state.json"
        if not path.exists():
            return None
        what = str(path)
        data = strictjson.loads(_read(path), what=what, max_bytes=64 * 1024**2)
        if strictjson.take(data, "schema", str, what=what) != _STATE_SCHEMA:
            raise InvalidInput(f"{what}: unknown schema {data['schema']!r}")
        versions = strictjson.take(data, "versions", dict, what=what)
        return Seen(
            strictjson.take(data, "site", str, what=what),
            Versions(
                *(
                    strictjson.take(versions, name, int, what=what)
                    for name in ("root", "timestamp", "snapshot", "targets")
                )
            ),
            strictjson.take(data, "sequence", int, what=what),
            Digest.parse(strictjson.take(data, "bundle", str, what=what)),
            tuple(
                Digest.parse(d) for d in strictjson.take_strings(data, "publications", what=what)
            ),
            tuple(Digest.parse(d) for d in strictjson.take_strings(data, "manifests", what=what)),
        )

    def remember(self, seen: Seen) -> None:
        """Write down what was taken, whole or not at all."""
        document = {
            "schema": _STATE_SCHEMA,
            "site": seen.site,
            "versions": {
                name: getattr(seen.versions, name)
                for name in ("root", "timestamp", "snapshot", "targets")
            },
            "sequence": seen.sequence,
            "bundle": str(seen.bundle),
            "publications": [str(digest) for digest in seen.publications],
            "manifests": [str(digest) for digest in seen.manifests],
        }
        replace_file(self.folder / "state.json", strictjson.dumps(document))


@dataclass(frozen=True, slots=True)
class Opened:
    """A bundle whose signature, sender, age and order were checked."""

    document: BundleDocument
    digest: Digest
    sender: Sender
    trusted: TrustedRoot
    """The sender's trust metadata, as of when the bundle was made."""


def pin_sender(trust: Path, root: bytes) -> Sender:
    """Pin a sender's root that a person chose; raises TrustError if it is none."""
    try:
        Root.pinned(root)
    except KgateError as exc:
        raise TrustError(f"not a trust root: {exc.message}", hint=exc.hint) from exc
    folder = trust / SENDERS / Digest.of(root).short
    _make(folder)
    replace_file(folder / "root.json", root)
    return Sender(folder, root)


def senders(trust: Path) -> list[Sender]:
    """Return every pinned sender."""
    found = sorted((trust / SENDERS).glob("*/root.json"))
    return [Sender(path.parent, _read(path)) for path in found]


def pin_receiver(trust: Path, pem: bytes) -> PublicKey:
    """Pin the public key that signs a receiver's receipts; raises InvalidInput."""
    key = PublicKey.from_pem(pem)
    _make(trust / RECEIVERS)
    replace_file(trust / RECEIVERS / f"{key.keyid[:12]}.pem", key.pem.encode())
    return key


def receiver_keys(trust: Path) -> dict[str, PublicKey]:
    """Return the pinned keys of receivers by hint."""
    keys = [PublicKey.from_pem(_read(path)) for path in (trust / RECEIVERS).glob("*.pem")]
    return {key.hint: key for key in keys}


def open_bundle(
    sealed: Sealed, head: Mapping[str, bytes], known: list[Sender], now: datetime
) -> Opened:
    """Check who made a bundle and that it is not older than what was seen; raises TrustError.

    `head` are the trust documents that travel with it, by name.
    """
    document = BundleDocument.from_json(sealed.document)
    _check_age(document, now)
    trust = TrustSet.from_files(head)
    sender, trusted = _find_sender(document, trust, known)
    # 1. A key that the sender's trust metadata named when the bundle was made.
    sealed.check(lambda hint: _signing_key(trusted, hint, document.created))
    # 2. Root, targets and snapshot still count today; the timestamp only dates the bundle.
    for role, data in (
        ("root", trust.roots[-1]),
        ("snapshot", trust.snapshot),
        ("targets", trust.targets),
    ):
        Metadata.parse(data, role).check_not_expired(now)
    # 3. Nothing older than what was taken before.
    if document.sequence != trusted.versions.timestamp:
        raise TrustError(
            f"bundle {document.sequence} carries the timestamp {trusted.versions.timestamp}"
        )
    seen = sender.seen
    if seen is not None:
        _check_order(document, sealed.digest, trusted, seen)
    return Opened(document, sealed.digest, sender, trusted)


def _check_age(document: BundleDocument, now: datetime) -> None:
    made = write_time(document.created)
    if document.created > now + CLOCK_SKEW:
        raise TrustError(
            f"the bundle was made at {made}, in the future", hint="check this machine's clock"
        )
    if now - document.created > MAX_AGE:
        raise TrustError(
            f"the bundle was made at {made}, more than {MAX_AGE.days} days ago",
            hint="ask its sender for a new one",
        )


def _find_sender(
    document: BundleDocument, trust: TrustSet, known: list[Sender]
) -> tuple[Sender, TrustedRoot]:
    reasons = []
    for sender in known:
        try:
            number = Root.pinned(sender.root).metadata.version
            # Checked as of when it was made: a disc is older than a day when it arrives.
            trusted = load(sender.root, trust.since(number), now=document.created)
        except KgateError as exc:
            reasons.append(exc.message)
            continue
        if trusted.site == document.site:
            return sender, trusted
        reasons.append(f"its site is {trusted.site}")
    said = f" ({'; '.join(reasons)})" if reasons else ""
    raise TrustError(
        f"the bundle says that it is from {document.site}, whose root is not pinned here{said}",
        hint="get the sender's trust/root.json over a way that you trust, compare its digest"
        " with its owner, and pin it: kgate bundle import --sender-root root.json …",
    )


def _signing_key(trusted: TrustedRoot, hint: str, created: datetime) -> PublicKey | None:
    key = trusted.keys.get(hint)
    if key is None or key.public.keyid in trusted.revoked_keys:
        return None
    if not key.valid_from - CLOCK_SKEW <= created < key.valid_until:
        return None
    return key.public


def _check_order(
    document: BundleDocument, digest: Digest, trusted: TrustedRoot, seen: Seen
) -> None:
    name = BUNDLE.name
    if document.sequence < seen.sequence:
        raise Conflict(
            f"this is bundle {document.sequence} of {document.site}; number {seen.sequence} was"
            " taken in already",
            hint="an old bundle would bring back what was replaced or revoked since",
        )
    if document.sequence == seen.sequence and digest != seen.bundle:
        raise Conflict(
            f"{document.site} made two different bundles with the number {document.sequence}",
            hint=f"compare both {name} with their sender: one of them is not what was sent",
        )
    trusted.versions.check_not_older(seen.versions)


def with_held(seen: Seen, before: Seen | None) -> Seen:
    """Return the state with what was held before added: blobs stay in the store."""
    if before is None:
        return seen
    return replace(
        seen,
        publications=tuple(sorted({*seen.publications, *before.publications})),
        manifests=tuple(sorted({*seen.manifests, *before.manifests})),
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise TrustError(f"{path}: cannot be read ({exc.strerror})") from exc


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise TrustError(f"{folder}: cannot be made ({exc.strerror})") from exc
