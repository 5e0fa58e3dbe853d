"""The snapshot of all feeds as one file, replaced whole and never half."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kgate_core.digest import Digest
from kgate_core.errors import KgateError, NotFound
from kgate_mirror_server.trust.files import replace_file
from kgate_scanner.advisories.snapshot import Snapshot

if TYPE_CHECKING:
    from pathlib import Path

    from kgate_mirror_server.app import Mirror
    from kgate_mirror_server.ports import Publication


def read_snapshot(path: Path) -> Snapshot:
    """Read the snapshot, an empty one if nothing was imported; raises InvalidInput, KgateError."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return Snapshot()
    except OSError as exc:
        raise KgateError(f"{path}: cannot be read ({exc.strerror})") from exc
    return Snapshot.parse(data)


def keep_snapshot(mirror: Mirror, snapshot: Snapshot) -> Digest:
    """Write the snapshot, and keep it in the store so that decisions can name it for ever."""
    path = mirror.config.path(mirror.config.feeds.snapshot)
    data = snapshot.to_bytes()
    digest = mirror.room.keep(data)
    replace_file(path, data)
    mirror.__dict__.pop("feed", None)  # it may have been read before
    return digest


def present_feed(mirror: Mirror) -> set[Digest]:
    """Return the digest of today's snapshot, nothing if there is none."""
    snapshot = read_snapshot(mirror.config.path(mirror.config.feeds.snapshot))
    return {Digest.of(snapshot.to_bytes())} if snapshot.sources else set()


def decisive_feeds(mirror: Mirror, publication: Publication) -> set[Digest]:
    """Return the digests of the snapshots that the decisions about a publication rest on."""
    found = set()
    for variant in publication.variants:
        try:
            report = mirror.room.vulnerabilities(variant.evidence)
        except NotFound:
            continue  # what it names cannot be told any more; `kgate scrub` names the loss
        if report is not None:
            found.add(report.feed)
    return found
