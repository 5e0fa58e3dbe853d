"""Take in a bundle: check its sender, its age and every byte, then decide here and publish last.

Revocations come first and from any single part. Kernels are published only when everything of the
bundle is there; the same run again changes nothing. What the sender allowed counts as evidence that
the kernel is his, never as this site's decision.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kgate_core.errors import IntegrityError, KgateError, NotFound
from kgate_mirror_server.bundle.admitting import admit_carried
from kgate_mirror_server.bundle.carried import Carried
from kgate_mirror_server.bundle.contents import LeftOut, check_attestations
from kgate_mirror_server.bundle.document import BundleDocument
from kgate_mirror_server.bundle.parts import choose_bundle, find_parts, locate, read_head
from kgate_mirror_server.bundle.receipts import Receipt
from kgate_mirror_server.bundle.receiving import Received, bytes_to_take, receive
from kgate_mirror_server.bundle.revoking import Revocations, take_revocations
from kgate_mirror_server.bundle.senders import Opened, Seen, open_bundle, senders, with_held
from kgate_mirror_server.bundle.upstream import StoredBytes
from kgate_mirror_server.feeds.carrying import CarriedFeeds, adopt_feeds
from kgate_mirror_server.ingest.sync import SyncResult
from kgate_mirror_server.store.disk import DiskStore
from kgate_mirror_server.store.opening import local_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime
    from pathlib import Path

    from kgate_core.digest import Digest
    from kgate_mirror_server.app import Mirror
    from kgate_mirror_server.bundle.parts import PartFile
    from kgate_mirror_server.ingest.fetch import Progress

INCOMING = "incoming"
"""Folder in the store for segments whose blob is not complete yet."""
_TRUST = "trust/"


@dataclass(slots=True)
class Imported:
    """How an import came out."""

    opened: Opened
    received: Received
    revocations: Revocations
    """What the sender withdrew or took back."""
    missing: tuple[Digest, ...] = ()
    """Blobs that neither the bundle nor the store has: a differential on something else."""
    refused: tuple[LeftOut, ...] = ()
    """Variants that the sender's own signatures do not cover; their publication is not taken."""
    feeds: CarriedFeeds = field(default_factory=CarriedFeeds)
    """Advisories that came along."""
    result: SyncResult = field(default_factory=SyncResult)
    receipt: Receipt | None = None
    """None while nothing was published."""


def import_bundle(
    mirror: Mirror,
    places: Sequence[Path],
    now: datetime,
    *,
    lane: str | None = None,
    progress: Progress,
    tell: Callable[[str], None],
    expect: Callable[[int], None] | None = None,
) -> Imported:
    """Take in the parts in these folders; raises TrustError, Conflict, InvalidInput, NotFound.

    `lane` puts everything into one lane of this site instead of the sender's lane of that name,
    `expect` hears how many bytes `progress` will count, once that is known.
    """
    # 1. Which bundle, by whom, not older than what was taken before.
    found = find_parts(places)
    group = choose_bundle(found)
    chosen = group[0]
    opened = _open(mirror, group, now)
    document = opened.document
    # 2. Revocations, from whatever part is at hand.
    revocations = take_revocations(mirror, opened, now)
    # 3. Every byte into the store, verified while it is written.
    staging = DiskStore(local_folder(mirror.config) / INCOMING)
    located = locate(found, chosen, document)
    if expect is not None:
        expect(bytes_to_take(mirror.store, document, located))
    received = receive(mirror.store, staging, document, len(chosen.raw), located, progress, tell)
    outcome = Imported(opened, received, revocations)
    if not received.complete:
        return outcome
    # 4. All that the publications name is there, from this bundle or an earlier one.
    outcome.missing = _missing(mirror, document)
    if outcome.missing:
        return outcome
    # 5. The sender's own signatures cover it.
    carried, outcome.refused = _covered(mirror, opened)
    # Advisories first: they are asked about what came with them.
    if document.feed is not None:
        outcome.feeds = adopt_feeds(mirror, document.feed, opened.trusted, document.created, now)
    # 6. This site scans, decides, signs and publishes.
    outcome.result = admit_carried(
        mirror,
        [item.in_lane(lane) for item in carried],
        StoredBytes(mirror.store),
        now,
        progress=lambda _count: None,
        tell=tell,
    )
    # 7. Nothing older counts from now on.
    outcome.receipt = _remember(mirror, opened, carried, now)
    return outcome


def receipt_of(mirror: Mirror, site: str, now: datetime) -> Receipt:
    """Return what this site holds of a sender; raises NotFound if it never took a bundle."""
    trust = mirror.config.path(mirror.config.trust)
    for sender in senders(trust):
        seen = sender.seen
        if seen is not None and (not site or seen.site == site):
            return _receipt(mirror, seen, now)
    raise NotFound(
        f"nothing was taken in from {site or 'anybody'} yet", hint="run `kgate bundle import` first"
    )


def _open(mirror: Mirror, group: Sequence[PartFile], now: datetime) -> Opened:
    """Open the bundle with the first part whose copy of the trust documents is whole."""
    known = senders(mirror.config.path(mirror.config.trust))
    trouble: KgateError | None = None
    for file in group:
        if file.sealed is None:
            raise AssertionError("the chosen parts have a description")
        try:
            head = read_head(file, BundleDocument.from_json(file.sealed.document))
        except IntegrityError as exc:
            trouble = exc
            continue
        trust = {
            path.removeprefix(_TRUST): data
            for path, data in head.items()
            if path.startswith(_TRUST)
        }
        return open_bundle(file.sealed, trust, known, now)
    raise trouble or AssertionError("there is at least one part")


def _missing(mirror: Mirror, document: BundleDocument) -> tuple[Digest, ...]:
    missing = []
    for digest in document.publications:
        if not mirror.store.has(digest):
            missing.append(digest)
            continue
        carried = Carried.parse(mirror.room.read(digest))
        missing += [blob for blob in carried.blobs if not mirror.store.has(blob)]
    if document.feed is not None and not mirror.store.has(document.feed):
        missing.append(document.feed)
    return tuple(missing)


def _covered(mirror: Mirror, opened: Opened) -> tuple[list[Carried], tuple[LeftOut, ...]]:
    """Return the publications all of whose variants the sender's own trust accepts."""
    carried = []
    refused: list[LeftOut] = []
    for digest in opened.document.publications:
        item = Carried.parse(mirror.room.read(digest))
        found = []
        for variant in item.publication.variants:
            reason = check_attestations(
                mirror, item.publication, variant, opened.trusted, opened.document.created
            )
            if reason is not None:
                name = f"{item.publication.repo}@{item.publication.served.short}"
                found.append(LeftOut(f"{name} {variant.variant}", reason))
        refused += found
        if not found:
            carried.append(item)
    return carried, tuple(refused)


def _remember(mirror: Mirror, opened: Opened, carried: Sequence[Carried], now: datetime) -> Receipt:
    manifests = {variant.manifest for item in carried for variant in item.publication.variants}
    seen = with_held(
        Seen(
            opened.document.site,
            opened.trusted.versions,
            opened.document.sequence,
            opened.digest,
            opened.document.publications,
            tuple(sorted(manifests)),
        ),
        opened.sender.seen,
    )
    opened.sender.remember(seen)
    return _receipt(mirror, seen, now)


def _receipt(mirror: Mirror, seen: Seen, now: datetime) -> Receipt:
    return Receipt(
        mirror.config.site,
        seen.site,
        seen.sequence,
        seen.bundle,
        now,
        seen.publications,
        seen.manifests,
    )
