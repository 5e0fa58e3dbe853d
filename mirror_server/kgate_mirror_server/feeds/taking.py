"""Take a feed in: by whose word, not older than what was there, and nothing of it half.

A feed counts if a key of the role `feed` signed it, if kgate.yaml names its digest, or if a person
says why it may count without either; the snapshot says by which of these it came. Feeds only grow:
what is older than before, or lost records without saying so, is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kgate_core.clock import write_time
from kgate_core.errors import Conflict, InvalidInput, TrustError
from kgate_core.trust import CLOCK_SKEW
from kgate_mirror_server.feeds.own import ROLE, is_own, read_own
from kgate_mirror_server.feeds.storage import keep_snapshot, read_snapshot
from kgate_mirror_server.settings.feeds import check_feed_name
from kgate_mirror_server.trust.files import changing
from kgate_scanner.advisories.documents import read_document
from kgate_scanner.advisories.snapshot import Means, Source

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from kgate_core.digest import Digest
    from kgate_core.keys import PublicKey
    from kgate_mirror_server.app import Mirror
    from kgate_scanner.advisories.collecting import Collected


@dataclass(frozen=True, slots=True)
class Taken:
    """How an import came out."""

    source: Source
    digest: Digest
    """Of the snapshot, as reports and decisions name it."""
    advisories: int
    statements: int
    skipped: tuple[tuple[str, str], ...]
    """Documents of other kinds, with the reason."""
    is_new: bool
    """False if this very feed was there already."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What decides whether a feed counts."""

    keys: Mapping[str, PublicKey]
    """That may sign feeds, by hint."""
    pins: Mapping[str, str]
    """Name to digest, from kgate.yaml."""
    now: datetime


def take_feed(
    mirror: Mirror, collected: Collected, now: datetime, *, name: str = "", reason: str = ""
) -> Taken:
    """Take a feed into the site's snapshot.

    `name` is for feeds that bear none; `reason` is why it counts although nobody signed it. Raises
    TrustError if nothing vouches for it, Conflict if it is older, and InvalidInput.
    """
    rules = Rules(mirror.trusted(now).signers(ROLE, now), mirror.config.feeds.pins, now)
    source, skipped = vouched(collected, rules, name, reason)
    advisories, statements = source.contents()
    path = mirror.config.path(mirror.config.feeds.snapshot)
    with changing(path.parent):  # two imports at once must not lose one of the feeds
        before = read_snapshot(path)
        known = before.source(source.name)
        digest = keep_snapshot(mirror, before.with_source(check_order(source, known, rules)))
    is_new = known is None or known.digest != source.digest
    return Taken(source, digest, len(advisories), len(statements), skipped, is_new)


def vouched(
    collected: Collected, rules: Rules, name: str, reason: str
) -> tuple[Source, tuple[tuple[str, str], ...]]:
    """Return a feed as a source by whatever vouches for it; raises TrustError."""
    own = [data for _, data in collected.documents if is_own(data)]
    if own and len(collected.documents) > 1:
        raise InvalidInput(
            "a signed feed lies among other documents", hint="import the signed file by itself"
        )
    if own:
        return _signed(collected, rules, name), ()
    return _unsigned(collected, rules, check_feed_name(name), reason)


def _signed(collected: Collected, rules: Rules, name: str) -> Source:
    ((path, data),) = collected.documents
    feed = read_own(data, rules.keys)
    if name and name != feed.name:
        raise InvalidInput(f"the signed feed calls itself {feed.name}, not {name}")
    _check_not_future(feed.issued, rules.now, f"feed {feed.name}")
    read_document(data, what=path)
    return Source(
        feed.name, Means.SIGNED, feed.hint, feed.sequence, feed.issued, ((path, data.decode()),)
    )


def _unsigned(
    collected: Collected, rules: Rules, name: str, reason: str
) -> tuple[Source, tuple[tuple[str, str], ...]]:
    digest = str(collected.digest)
    pinned = rules.pins.get(name)
    if pinned is not None and pinned != digest:
        raise TrustError(
            f"feed {name} is {digest}, kgate.yaml pins {pinned}",
            hint=f"look at what changed, then set feeds.pins.{name} to the new digest",
        )
    if pinned is None and not reason.strip():
        raise TrustError(
            f"nothing vouches for feed {name}: it is not signed, and its digest is not pinned",
            hint=f"write it into kgate.yaml (feeds.pins.{name}: {digest}), or say why it counts:"
            ' --accept-unsigned "REASON"',
        )
    dates: list[datetime] = []
    stated: list[datetime] = []
    skipped: list[tuple[str, str]] = []
    for path, data in collected.documents:
        content = read_document(data, what=path)
        dates += content.dates
        stated += [item.stated for item in content.statements]
        if content.skipped:
            skipped.append((path, content.skipped))
    if not dates and not stated:
        raise InvalidInput(
            f"feed {name}: none of its {len(collected.documents)} documents is known",
            hint="OSV, CSAF 2.0, CycloneDX VEX and OpenVEX are read",
        )
    newest = max(dates or stated)
    _check_not_future(max(*dates, *stated, newest), rules.now, f"feed {name}")
    means = (Means.ACCEPTED, reason.strip()) if pinned is None else (Means.PINNED, pinned)
    texts = tuple((path, data.decode()) for path, data in collected.documents)
    return Source(name, *means, 0, newest, texts), tuple(skipped)


def check_order(source: Source, before: Source | None, rules: Rules) -> Source:
    """Return the source if it may take the place of an earlier one; raises Conflict."""
    if before is None or before.digest == source.digest:
        return source
    if before.means is Means.SIGNED and source.means is not Means.SIGNED:
        raise Conflict(
            f"feed {source.name} was signed before, this one is not",
            hint="import it under another name if it is something else",
        )
    old = write_time(before.date)
    hint = "somebody gave you an old or shortened copy: get it again from its publisher"
    if source.means is Means.SIGNED and before.means is Means.SIGNED:
        if source.sequence == before.sequence:
            raise Conflict(f"there are two feeds {source.name} with the number {source.sequence}")
        if source.sequence < before.sequence or source.date < before.date:
            raise Conflict(
                f"feed {source.name} has the number {source.sequence} of"
                f" {write_time(source.date)}; number {before.sequence} of {old} was taken before",
                hint=hint,
            )
        return source
    if source.date < before.date:
        raise Conflict(
            f"feed {source.name} is of {write_time(source.date)}; one of {old} was taken before",
            hint=hint,
        )
    _check_records(source, before, is_pinned=rules.pins.get(source.name) == str(source.digest))
    return source


def _check_records(source: Source, before: Source, *, is_pinned: bool) -> None:
    """Refuse a feed without signature whose records went back, or went away unpinned."""
    newest = {item.id: item.modified for item in source.contents()[0]}
    for item in before.contents()[0]:
        if item.id not in newest and not is_pinned:
            raise Conflict(
                f"feed {source.name} has lost {item.id}, which it had before",
                hint="publishers mark records as withdrawn; if this one is right, pin its digest"
                f" in kgate.yaml: feeds.pins.{source.name}: {source.digest}",
            )
        if newest.get(item.id, item.modified) < item.modified:
            raise Conflict(
                f"feed {source.name} has an older {item.id} than before",
                hint="somebody gave you an old copy: get it again from its publisher",
            )


def _check_not_future(date: datetime, now: datetime, what: str) -> None:
    if date > now + CLOCK_SKEW:
        # It would look fresh for ever, and no honest feed could replace it.
        raise TrustError(
            f"{what} says that it is of {write_time(date)}, in the future",
            hint="check this machine's clock, then ask the publisher",
        )
