"""A publication's row as a blob, so that the store alone can fill an empty catalog again.

Format: `kgate.dev/shelved/v1`, canonical JSON with everything that the catalog keeps about one
publication. It is a claim like the row itself: who reads it back checks the signed bundles that it
names. It is written before the row is, and found again by its first bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kgate_core import strictjson
from kgate_core.clock import read_time, write_time
from kgate_core.digest import Digest
from kgate_core.errors import InvalidInput
from kgate_core.kernel import KernelRef, RepoType, Revision, check_origin
from kgate_mirror_server.ports import EvidenceKind, Publication, PublishedVariant, ServedFile

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kgate_mirror_server.app import Mirror
    from kgate_mirror_server.ports import BlobStore
    from kgate_mirror_server.store.tending import Readable

SCHEMA: Final = "kgate.dev/shelved/v1"
MAX_BYTES: Final = 64 * 1024**2  # bytes of one record: some 200,000 files
# Canonical JSON sorts its keys: this one comes first in every record.
_START: Final = f'{{"_":"{SCHEMA}",'.encode()


def shelved(item: Publication) -> tuple[Digest, bytes]:
    """Return the record of a publication with its digest."""
    data = strictjson.dumps(
        {
            "_": SCHEMA,
            "origin": item.origin,
            "type": str(item.repo_type),
            "repo": str(item.repo),
            "served": str(item.served),
            "upstream": str(item.upstream),
            "version": item.version,
            "lane": item.lane,
            "publishedAt": write_time(item.published_at),
            "depends": list(item.depends),
            "variants": [
                {
                    "variant": variant.variant,
                    "manifest": str(variant.manifest),
                    "files": [
                        [file.path, file.size, str(file.digest), file.oid, file.lfs]
                        for file in variant.files
                    ],
                    "bundles": [str(digest) for digest in variant.bundles],
                    "evidence": {str(k): str(d) for k, d in sorted(variant.evidence.items())},
                }
                for variant in item.variants
            ],
        }
    )
    return Digest.of(data), data


def shelve(store: BlobStore, item: Publication) -> Digest:
    """Keep the record of a publication in the store."""
    digest, data = shelved(item)
    if not store.has(digest):
        store.put(digest, len(data), [data])
    return digest


def publish(mirror: Mirror, item: Publication) -> None:
    """Publish what has all evidence, its record in the store first; raises Conflict."""
    shelve(mirror.store, item)
    mirror.catalog.publish(item)


def parse_shelved(data: bytes) -> Publication:
    """Read a record; raises InvalidInput."""
    what = "shelved publication"
    document = strictjson.loads(data, what=what, max_bytes=MAX_BYTES)
    if strictjson.take(document, "_", str, what=what) != SCHEMA:
        raise InvalidInput(f"{what}: unknown schema", hint="a newer kgate wrote it: upgrade")
    kind = strictjson.take(document, "type", str, what=what)
    version = document["version"] if isinstance(document, dict) else None
    if kind not in set(RepoType) or not (version is None or type(version) is int):
        raise InvalidInput(f"{what}: unknown repository type or version")
    return Publication(
        check_origin(strictjson.take(document, "origin", str, what=what)),
        RepoType(kind),
        KernelRef.parse(strictjson.take(document, "repo", str, what=what)),
        Revision(strictjson.take(document, "served", str, what=what)),
        Revision(strictjson.take(document, "upstream", str, what=what)),
        version,
        strictjson.take(document, "lane", str, what=what),
        tuple(
            _variant(item, what=what)
            for item in strictjson.take(document, "variants", list, what=what)
        ),
        read_time(strictjson.take(document, "publishedAt", str, what=what), what=what),
        strictjson.take_strings(document, "depends", what=what),
    )


def find_shelved(store: Readable) -> Iterator[Publication]:
    """Yield the publications whose records are in a store; other blobs are passed over."""
    for digest in store.digests():
        with store.open(digest) as stream:
            start = stream.read(len(_START))
            if start != _START:
                continue
            data = start + stream.read(MAX_BYTES)
        if Digest.of(data) == digest:
            yield parse_shelved(data)


def _variant(data: strictjson.JsonValue, *, what: str) -> PublishedVariant:
    files = []
    for entry in strictjson.take(data, "files", list, what=what):
        match entry:
            case [str(path), int(size), str(digest), str(oid), bool(lfs)]:
                files.append(ServedFile(path, size, Digest.parse(digest), oid, lfs))
            case _:
                raise InvalidInput(f"{what}: malformed file {entry!r}")
    evidence = strictjson.take(data, "evidence", dict, what=what)
    if not set(evidence) <= set(EvidenceKind):
        raise InvalidInput(f"{what}: evidence of an unknown kind")
    return PublishedVariant(
        strictjson.take(data, "variant", str, what=what),
        Digest.parse(strictjson.take(data, "manifest", str, what=what)),
        tuple(files),
        tuple(Digest.parse(d) for d in strictjson.take_strings(data, "bundles", what=what)),
        {
            EvidenceKind(name): Digest.parse(strictjson.take(evidence, name, str, what=what))
            for name in evidence
        },
    )
