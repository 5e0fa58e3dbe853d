"""Fill an empty catalog from the blob store: the same digests are served again.

Records on the shelf are claims that anybody may have written who can write to the store. So the
site's own signed publication log says what was published and which version means what, and each
variant's signed bundles must count today. Rows that are not in the log, and entries whose bytes,
signatures or records are gone, are left out and named. Denials, holds, tokens and the audit log are
in no store: sync makes the first again, a backup has the others.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from kgate_core.errors import KgateError
from kgate_core.kernel import KernelId
from kgate_mirror_server.bundle.contents import check_attestations
from kgate_mirror_server.catalog.keeping import Place
from kgate_mirror_server.ingest.sync import refresh_trust
from kgate_mirror_server.ports import EvidenceKind, IntakeState
from kgate_mirror_server.trust.publicationlog import check_log, record
from kgate_mirror_server.upkeep.references import blobs_of
from kgate_mirror_server.upkeep.shelf import find_shelved, publish

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from kgate_core.digest import Digest
    from kgate_core.trust import TrustedRoot
    from kgate_mirror_server.app import Mirror
    from kgate_mirror_server.ports import Publication
    from kgate_mirror_server.store.tending import Readable
    from kgate_signer.publog import Entry


@dataclass(slots=True)
class Refilled:
    """What came back."""

    publications: int = 0
    variants: int = 0
    left_out: list[tuple[str, str]] = field(default_factory=list)
    """What the log says was published and is not again, each with the reason."""


def refill(
    mirror: Mirror, store: Readable, now: datetime, *, tell: Callable[[str], None]
) -> Refilled:
    """Publish again what the log and the store agree on; raises TrustError, IntegrityError.

    `store` is this site's own or a copy of it. Running it twice changes nothing.
    """
    refresh_trust(mirror, now)
    trusted = mirror.trusted(now)
    said, branches = _said(check_log(mirror, trusted))
    records: dict[Place, list[Publication]] = {}
    for item in find_shelved(store):
        records.setdefault(Place.of(item), []).append(item)
    done = Refilled()
    for place, entry in said.items():
        manifests = dict(entry.published.variants)
        chosen, reason = _choose(mirror, store, records.get(place, ()), manifests, trusted, now)
        if chosen is None:
            done.left_out.append((str(place), reason))
            continue
        tell(f"publishing {place}")
        _remember(mirror, chosen, now)
        for version in (None, *sorted(branches.get(place, ()))):
            publish(mirror, replace(chosen, version=version))
        done.publications += 1
        done.variants += len(chosen.variants)
    if record(mirror, now):
        refresh_trust(mirror, now)
    return done


def _said(entries: Iterable[Entry]) -> tuple[dict[Place, Entry], dict[Place, set[int]]]:
    """Return the last entry of each publication, and which versions mean it in the end."""
    last: dict[Place, Entry] = {}
    means: dict[tuple[str, str, str, int], Place] = {}
    for entry in entries:
        item = entry.published
        place = Place(str(item.repo_type), str(item.repo), str(item.served), item.lane)
        last[place] = entry
        if item.version is not None:
            means[place.repo_type, place.repo, place.lane, item.version] = place
    branches: dict[Place, set[int]] = {}
    for (*_, version), place in means.items():
        branches.setdefault(place, set()).add(version)
    return last, branches


def _choose(
    mirror: Mirror,
    store: Readable,
    records: Iterable[Publication],
    manifests: dict[str, Digest],
    trusted: TrustedRoot,
    now: datetime,
) -> tuple[Publication | None, str]:
    """Return the newest record that the log bears out and whose signatures count, or why none."""
    reason = "its record is not in the store: it was retired, or lost"
    best: tuple[tuple[datetime, int], Publication] | None = None
    for item in records:
        if {v.variant: v.manifest for v in item.variants} != manifests:
            reason = "its record names other bytes than the signed log"
            continue
        try:
            _copy(mirror, store, item)
            refused = [
                f"{variant.variant}: {said}"
                for variant in item.variants
                if (said := check_attestations(mirror, item, variant, trusted, now)) is not None
            ]
            rank = _rank(mirror, item)
        except KgateError as exc:
            reason = exc.message
            continue
        if refused:
            reason = "; ".join(refused)
        elif best is None or rank > best[0]:
            best = (rank, item)
    return (None, reason) if best is None else (best[1], "")


def _rank(mirror: Mirror, item: Publication) -> tuple[datetime, int]:
    decided = [mirror.room.decision(variant.evidence).decided_at for variant in item.variants]
    return max(decided), sum(len(variant.bundles) for variant in item.variants)


def _copy(mirror: Mirror, store: Readable, item: Publication) -> None:
    """Make sure that every blob of a publication is in this site's store."""
    for digest in blobs_of(item):
        if not mirror.store.has(digest):
            mirror.store.put(digest, store.seen(digest).size, store.chunks(digest))


def _remember(mirror: Mirror, item: Publication, now: datetime) -> None:
    """Note what is known about each variant, as sync looks it up and as the signer does."""
    for variant in item.variants:
        if EvidenceKind.DECISION not in variant.evidence:
            continue
        for revision in {item.upstream, item.served}:
            kernel = KernelId(item.origin, item.repo_type, item.repo, revision, variant.variant)
            mirror.room.remember(
                kernel, item.lane, variant.manifest, variant.evidence, IntakeState.DECIDED, now
            )
