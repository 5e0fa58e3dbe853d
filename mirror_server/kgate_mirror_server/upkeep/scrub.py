"""Read every blob again: what the disk changed is set aside, and fetched anew where it can be.

A damaged blob is moved to `damaged/` in the store, for whoever looks into the disk; from
then on it is missing, and nothing that needs it is served. Files come again from the upstream that
they came from, manifests and records are made again from the catalog. Signed bundles and evidence
cannot be made again: those come back from a backup.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kgate_core.errors import KgateError, NotFound
from kgate_core.kernel import folder_of
from kgate_core.manifest import FileEntry, Manifest
from kgate_mirror_server.ingest.resolve import read_lock
from kgate_mirror_server.ports import UpstreamFile
from kgate_mirror_server.store.tending import tended
from kgate_mirror_server.upkeep.references import References, find_references
from kgate_mirror_server.upkeep.shelf import shelve, shelved

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from kgate_core.digest import Digest
    from kgate_mirror_server.app import Mirror
    from kgate_mirror_server.ports import HubClient, Publication, PublishedVariant, ServedFile
    from kgate_mirror_server.store.tending import Readable


@dataclass(frozen=True, slots=True)
class Trouble:
    """A blob that is not what it should be."""

    digest: Digest
    what: str
    """damaged, missing or unreadable."""
    needed_by: tuple[str, ...]
    repaired: bool = False
    reason: str = ""
    """Why it could not be repaired."""


@dataclass(slots=True)
class Scrubbed:
    """What a run found."""

    read: int = 0
    read_bytes: int = 0
    troubles: list[Trouble] = field(default_factory=list)


def scrub(
    mirror: Mirror,
    *,
    repair: bool,
    tell: Callable[[str], None],
    progress: Callable[[int], None],
) -> Scrubbed:
    """Read everything; with `repair`, set damaged blobs aside and bring back what can be."""
    store, done = tended(mirror.store), Scrubbed()
    publications = mirror.catalog.publications()
    found: dict[Digest, str] = {}
    for digest in list(store.digests()):
        what, size = look(store, digest, progress)
        done.read += 1
        done.read_bytes += size
        if what is not None:
            found[digest] = what
    if repair:
        for digest, what in found.items():
            if what == "damaged":
                store.set_aside(digest)
    references = _needed(mirror, publications)
    missing = {digest: "missing" for digest in references.by_blob if not store.has(digest)}
    found = missing | found
    for digest, what in sorted(found.items()):
        tell(f"{what}: {digest}")
        needed = tuple(references.by_blob.get(digest, ()))
        reason = "not asked to" if not repair else bring_back(mirror, publications, digest)
        done.troubles.append(Trouble(digest, what, needed, reason is None, reason or ""))
    if repair:
        for item in publications:
            shelve(mirror.store, item)
    return done


def look(
    store: Readable, digest: Digest, progress: Callable[[int], None]
) -> tuple[str | None, int]:
    """Read one blob; returns what is wrong with it, if anything, and how many bytes it has."""
    state, size = hashlib.sha256(), 0
    try:
        for chunk in store.chunks(digest):
            state.update(chunk)
            size += len(chunk)
            progress(len(chunk))
    except NotFound:
        return None, size  # removed meanwhile
    except (KgateError, OSError):
        return "unreadable", size
    return (None if state.hexdigest() == digest.hex else "damaged"), size


def bring_back(mirror: Mirror, publications: Sequence[Publication], digest: Digest) -> str | None:
    """Put a blob back that is not there; returns why that failed, or None."""
    store = mirror.store
    if store.has(digest):
        return "it is there but cannot be read: look after the disk"
    for item in publications:
        if shelved(item)[0] == digest:
            shelve(store, item)
            return None
        for variant in item.variants:
            if variant.manifest == digest:
                data = _manifest(variant).canonical
                store.put(digest, len(data), [data])
                return None
    for item, file in _files(publications):
        if file.digest == digest:
            return _fetch(mirror, item, file)
    return "only a backup has it: nothing else signs or states the same again"


def _fetch(mirror: Mirror, item: Publication, file: ServedFile) -> str | None:
    wanted = UpstreamFile(file.path, file.size, file.oid, file.digest.hex if file.lfs else None)
    try:
        upstream = _upstream(mirror, item.origin)
        chunks = upstream.read(item.repo, item.upstream, wanted)
        mirror.store.put(file.digest, file.size, chunks)
    except KgateError as exc:
        return exc.message
    return None


def _upstream(mirror: Mirror, origin: str) -> HubClient:
    for name in (None, *mirror.config.upstreams):
        chosen = mirror.config.upstream if name is None else mirror.config.upstreams[name]
        if chosen.identity == origin:
            return mirror.open_upstream(name)
    raise NotFound(f"no upstream in kgate.yaml is {origin}")


def _manifest(variant: PublishedVariant) -> Manifest:
    prefix = folder_of(variant.variant)
    return Manifest.of(
        FileEntry(file.path.removeprefix(prefix), file.size, file.digest) for file in variant.files
    )


def _files(publications: Sequence[Publication]) -> Iterator[tuple[Publication, ServedFile]]:
    for item in publications:
        for variant in item.variants:
            for file in variant.files:
                yield item, file


def _needed(mirror: Mirror, publications: Sequence[Publication]) -> References:
    try:
        return find_references(mirror, publications, read_lock(mirror.config.folder))
    except KgateError:
        # What is damaged may be what would be asked: publications are what counts.
        return find_references(mirror, publications, None)
