"""Advisories that came in a bundle: each feed is taken as if a person had brought it.

A feed counts if a key of the role `feed` signed it, one of this site's or one that the sender's
pinned trust names, or if this site's kgate.yaml pins its digest. What the sender accepted without
either is left out and named. Older feeds stay behind; nothing of all this stops the kernels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kgate_core.errors import Conflict, KgateError
from kgate_mirror_server.feeds.own import ROLE
from kgate_mirror_server.feeds.storage import keep_snapshot, read_snapshot
from kgate_mirror_server.feeds.taking import Rules, check_order, vouched
from kgate_mirror_server.trust.files import changing
from kgate_scanner.advisories.collecting import Collected
from kgate_scanner.advisories.snapshot import Means, Snapshot

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet
    from datetime import datetime

    from kgate_core.digest import Digest
    from kgate_core.trust import TrustedRoot
    from kgate_mirror_server.app import Mirror
    from kgate_scanner.advisories.snapshot import Source


@dataclass(frozen=True, slots=True)
class CarriedFeeds:
    """What became of the feeds of a bundle."""

    taken: tuple[str, ...] = ()
    """Names of those that are newer and count here."""
    left: tuple[tuple[str, str], ...] = ()
    """Names of those that were not taken, with the reason."""


def snapshot_bytes(mirror: Mirror) -> bytes | None:
    """Return the snapshot of this site as it travels; None if there is none."""
    snapshot = read_snapshot(mirror.config.path(mirror.config.feeds.snapshot))
    return snapshot.to_bytes() if snapshot.sources else None


def adopt_feeds(
    mirror: Mirror, digest: Digest, sender: TrustedRoot, made: datetime, now: datetime
) -> CarriedFeeds:
    """Take in the feeds of a stored snapshot that count here; raises InvalidInput, NotFound.

    `sender` is the trust of whoever made the bundle, as of when it was `made`.
    """
    own = mirror.trusted(now).signers(ROLE, now)
    rules = Rules(sender.signers(ROLE, made) | own, mirror.config.feeds.pins, now)
    path = mirror.config.path(mirror.config.feeds.snapshot)
    carried = Snapshot.parse(mirror.room.read(digest))
    taken, left = [], []
    with changing(path.parent):
        before = after = read_snapshot(path)
        for source in carried.sources:
            known = before.source(source.name)
            if known is not None and known.digest == source.digest:
                continue
            try:
                after = after.with_source(_checked(source, known, rules, own.keys()))
            except KgateError as exc:
                left.append((source.name, exc.message))
            else:
                taken.append(source.name)
        if after != before:
            keep_snapshot(mirror, after)
    return CarriedFeeds(tuple(taken), tuple(left))


def _checked(source: Source, known: Source | None, rules: Rules, own: AbstractSet[str]) -> Source:
    """Return the source as this site vouches for it; raises what `vouched` raises, and Conflict."""
    documents = tuple((name, text.encode()) for name, text in source.documents)
    name = "" if source.means is Means.SIGNED else source.name
    # No reason is given: what a person accepted elsewhere, nobody has accepted here.
    found, _ = vouched(Collected(documents), rules, name, "")
    if known is not None and known.detail in own and found.detail not in own:
        raise Conflict(f"feed {found.name} is signed by a key of this site, this one by another")
    return check_order(found, known, rules)
