"""Who needs which blob: the proof on which something is removed.

Publications need their files, manifests, signed bundles and evidence; denials and what is on its
way in need their evidence; the lock needs what it promises; senders rely on what this site's
receipts told them it holds; decisions rest on the advisories of their day. A place that cannot be
read is an error, never an empty answer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kgate_core.errors import KgateError, NotFound
from kgate_core.manifest import Manifest
from kgate_mirror_server.bundle.carried import Carried
from kgate_mirror_server.bundle.senders import senders
from kgate_mirror_server.feeds.storage import decisive_feeds, present_feed
from kgate_mirror_server.upkeep.shelf import shelved

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kgate_core.digest import Digest
    from kgate_core.lock import Lock
    from kgate_mirror_server.app import Mirror
    from kgate_mirror_server.ports import Publication

_SHOWN = 8  # referrers of one blob that a person is shown


@dataclass(slots=True)
class References:
    """By blob, who needs it; and how many referrers of each kind were asked."""

    by_blob: dict[Digest, list[str]] = field(default_factory=dict)
    asked: dict[str, int] = field(default_factory=dict)

    def add(self, who: str, blobs: Iterable[Digest]) -> None:
        """Note that somebody needs these."""
        for digest in blobs:
            names = self.by_blob.setdefault(digest, [])
            if who not in names and len(names) < _SHOWN:
                names.append(who)

    def count(self, kind: str, number: int) -> None:
        """Note how many of a kind were asked."""
        self.asked[kind] = self.asked.get(kind, 0) + number


def find_references(
    mirror: Mirror, publications: Iterable[Publication], lock: Lock | None
) -> References:
    """Ask everybody who may need a blob; raises KgateError if one of them cannot be asked."""
    found = References()
    found.add("the present advisories", present_feed(mirror))
    for item in publications:
        who = f"{item.repo}@{item.served.short} in lane {item.lane}"
        found.add(who, blobs_of(item) | decisive_feeds(mirror, item))
        found.count("publications", 1)
    for denial in mirror.catalog.denials():
        who = f"denial of {denial.repo}@{denial.upstream.short} {denial.variant}"
        found.add(who, denial.evidence.values())
        found.count("denials", 1)
    for arriving in mirror.keeping.arriving():
        who = f"intake of {arriving.kernel} ({arriving.state})"
        found.add(who, (arriving.manifest, *arriving.evidence.values()))
        found.count("intake", 1)
    for locked in () if lock is None else lock.kernels:
        for name, variant in locked.variants.items():
            who = f"kgate.lock: {locked.repo}@{locked.pin} {name}"
            found.add(who, _of_manifest(mirror, variant.manifest))
            found.count("locked variants", 1)
    for sender in senders(mirror.config.path(mirror.config.trust)):
        if (seen := sender.seen) is None:
            continue
        who = f"receipt to {seen.site}"
        for digest in seen.manifests:
            found.add(who, _of_manifest(mirror, digest))
        for digest in seen.publications:
            found.add(who, _of_document(mirror, digest))
        found.count("receipts", 1)
    return found


def blobs_of(item: Publication) -> set[Digest]:
    """Return every blob of a publication, its own record on the shelf included."""
    found = {shelved(item)[0]}
    for variant in item.variants:
        found |= {variant.manifest, *variant.bundles, *variant.evidence.values()}
        found |= {file.digest for file in variant.files}
    return found


def _of_manifest(mirror: Mirror, digest: Digest) -> set[Digest]:
    try:
        manifest = Manifest.parse(mirror.room.read(digest))
    except NotFound:
        return {digest}  # its files are not here either, or are kept by somebody else
    return {digest, *(entry.digest for entry in manifest.files)}


def _of_document(mirror: Mirror, digest: Digest) -> set[Digest]:
    try:
        return {digest, *Carried.parse(mirror.room.read(digest)).blobs}
    except NotFound:
        return {digest}
    except KgateError as exc:
        raise KgateError(f"{digest}: {exc.message}", hint="run `kgate scrub`") from exc
