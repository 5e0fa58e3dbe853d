"""A publication as it travels, on a disc or in a registry: one JSON document naming every blob.

Format: `kgate.dev/publication/v1`, canonical JSON. The document is a claim like a catalog row: who
takes it in checks the signed bundles that it names and lets its own policy decide anew. Scan
reports do not travel, because the far side scans for itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from kgate_core import strictjson
from kgate_core.clock import read_time, write_time
from kgate_core.digest import Digest
from kgate_core.errors import InvalidInput
from kgate_core.kernel import KernelRef, RepoType, Revision, Variant, check_origin
from kgate_core.lock import LockedKernel, LockedVariant
from kgate_core.manifest import FileEntry, Manifest
from kgate_mirror_server.ports import EvidenceKind, Publication, PublishedVariant, ServedFile
from kgate_mirror_server.settings.site import Pin

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kgate_mirror_server.ingest.evidence import EvidenceRoom
    from kgate_mirror_server.ports import BlobStore

SCHEMA: Final = "kgate.dev/publication/v1"
MAX_BYTES: Final = 64 * 1024**2  # bytes of one document: some 200,000 files
TRAVELS: Final = (
    EvidenceKind.MANIFEST,
    EvidenceKind.SBOM,
    EvidenceKind.IMPORT,
    EvidenceKind.DECISION,
    EvidenceKind.UPSTREAM,
)


@dataclass(frozen=True, slots=True)
class Carried:
    """A publication with what its receiver needs to know besides."""

    publication: Publication
    redirects: bool
    """True if upstream's kernel-status.toml sends some clients to another repository."""
    sizes: Mapping[Digest, int]
    """Bytes of each document (evidence, signed bundle) that the publication names."""

    @property
    def blobs(self) -> dict[Digest, int]:
        """Every blob that must arrive, with its size in bytes: documents first, then files."""
        found = dict(self.sizes)
        for variant in self.publication.variants:
            found |= {file.digest: file.size for file in variant.files}
        return found

    def in_lane(self, lane: str | None) -> Carried:
        """Return the same publication for another lane; None leaves it where it was."""
        if lane is None:
            return self
        return replace(self, publication=replace(self.publication, lane=lane))

    @property
    def pin(self) -> Pin:
        """The pin under which a receiving site admits it."""
        item = self.publication
        wanted: dict[str, Any] = (
            {"revision": str(item.upstream)} if item.version is None else {"version": item.version}
        )
        names = tuple(variant.variant for variant in item.variants)
        return Pin(repo=str(item.repo), variants=names, lane=item.lane, **wanted)

    @property
    def locked(self) -> LockedKernel:
        """The lock entry that goes with the pin."""
        item = self.publication
        return LockedKernel(
            item.origin,
            item.repo_type,
            item.repo,
            item.lane,
            self.pin.wanted,
            item.upstream,
            {
                variant.variant: LockedVariant(
                    variant.manifest, sum(file.size for file in variant.files), len(variant.files)
                )
                for variant in item.variants
            },
            item.depends,
            self.pin.variants,
        )

    def to_bytes(self) -> bytes:
        """Return the document in canonical bytes."""
        item = self.publication
        return strictjson.dumps(
            {
                "schema": SCHEMA,
                "origin": item.origin,
                "type": str(item.repo_type),
                "repo": str(item.repo),
                "served": str(item.served),
                "upstream": str(item.upstream),
                "version": item.version,
                "lane": item.lane,
                "publishedAt": write_time(item.published_at),
                "depends": list(item.depends),
                "redirects": self.redirects,
                "variants": [self._variant_json(variant) for variant in item.variants],
            }
        )

    def _variant_json(self, variant: PublishedVariant) -> dict[str, Any]:
        return {
            "variant": variant.variant,
            "manifest": str(variant.manifest),
            "files": [
                {
                    "path": file.path,
                    "size": file.size,
                    "digest": str(file.digest),
                    "oid": file.oid,
                    "lfs": file.lfs,
                }
                for file in variant.files
            ],
            "bundles": [
                {"digest": str(digest), "size": self.sizes[digest]} for digest in variant.bundles
            ],
            "evidence": {
                str(kind): {"digest": str(digest), "size": self.sizes[digest]}
                for kind, digest in sorted(variant.evidence.items())
            },
        }

    @classmethod
    def parse(cls, data: bytes) -> Carried:
        """Read a document; raises InvalidInput, also if its files are not those of a manifest."""
        what = "publication"
        document = strictjson.loads(data, what=what, max_bytes=MAX_BYTES)
        if strictjson.take(document, "schema", str, what=what) != SCHEMA:
            raise InvalidInput(
                f"{what}: unknown schema {document['schema']!r}; this version reads {SCHEMA}",
                hint="it was written by a newer kgate: upgrade this one",
            )
        version = document.get("version")
        if version is not None:
            version = strictjson.take(document, "version", int, what=what)
        kind = strictjson.take(document, "type", str, what=what)
        if kind not in set(RepoType):
            raise InvalidInput(f"{what}: unknown repository type {kind!r}")
        sizes: dict[Digest, int] = {}
        variants = tuple(
            _parse_variant(item, sizes)
            for item in strictjson.take(document, "variants", list, what=what)
        )
        names = [variant.variant for variant in variants]
        if not names or len(set(names)) != len(names):
            raise InvalidInput(f"{what}: no variants, or one stands twice")
        publication = Publication(
            check_origin(strictjson.take(document, "origin", str, what=what)),
            RepoType(kind),
            KernelRef.parse(strictjson.take(document, "repo", str, what=what)),
            Revision(strictjson.take(document, "served", str, what=what)),
            Revision(strictjson.take(document, "upstream", str, what=what)),
            version,
            strictjson.take(document, "lane", str, what=what),
            variants,
            read_time(strictjson.take(document, "publishedAt", str, what=what), what=what),
            strictjson.take_strings(document, "depends", what=what),
        )
        redirects = strictjson.take(document, "redirects", bool, what=what)
        return cls(publication, redirects, sizes)


def carry(publication: Publication, room: EvidenceRoom, store: BlobStore) -> Carried:
    """Return a publication ready to travel; raises NotFound if a document is not in the store."""
    redirects = False
    sizes: dict[Digest, int] = {}
    variants = []
    for variant in publication.variants:
        evidence = {kind: variant.evidence[kind] for kind in TRAVELS if kind in variant.evidence}
        if EvidenceKind.IMPORT in evidence:
            redirects |= room.imported(evidence).redirects
        for digest in (*evidence.values(), *variant.bundles):
            sizes[digest] = store.path(digest).stat().st_size
        variants.append(replace(variant, evidence=evidence))
    return Carried(replace(publication, variants=tuple(variants)), redirects, sizes)


def manifest_of(variant: PublishedVariant) -> Manifest:
    """Return the manifest of a variant's files; raises InvalidInput for paths outside of it."""
    prefix = f"build/{variant.variant}/"
    return Manifest.of(_entries(variant, prefix))


def _entries(variant: PublishedVariant, prefix: str) -> Iterator[FileEntry]:
    for file in variant.files:
        if not file.path.startswith(prefix):
            raise InvalidInput(f"publication: {file.path!r} lies outside {prefix}")
        yield FileEntry(file.path.removeprefix(prefix), file.size, file.digest)


def _parse_variant(data: strictjson.JsonValue, sizes: dict[Digest, int]) -> PublishedVariant:
    name = strictjson.take(data, "variant", str, what="publication")
    Variant.parse(name)
    what = f"publication: {name}"
    bundles = tuple(
        _sized(item, sizes, what=what) for item in strictjson.take(data, "bundles", list, what=what)
    )
    evidence: dict[EvidenceKind, Digest] = {}
    for kind, item in strictjson.take(data, "evidence", dict, what=what).items():
        if kind not in set(TRAVELS):
            raise InvalidInput(f"{what}: evidence of the unknown kind {kind!r}")
        evidence[EvidenceKind(kind)] = _sized(item, sizes, what=what)
    files = tuple(
        _parse_file(item, what=what) for item in strictjson.take(data, "files", list, what=what)
    )
    variant = PublishedVariant(
        name,
        Digest.parse(strictjson.take(data, "manifest", str, what=what)),
        files,
        bundles,
        evidence,
    )
    if manifest_of(variant).digest != variant.manifest:
        raise InvalidInput(f"{what}: its files are not those of the manifest {variant.manifest}")
    return variant


def _sized(data: strictjson.JsonValue, sizes: dict[Digest, int], *, what: str) -> Digest:
    digest = Digest.parse(strictjson.take(data, "digest", str, what=what))
    sizes[digest] = strictjson.take(data, "size", int, what=what)
    return digest


def _parse_file(data: strictjson.JsonValue, *, what: str) -> ServedFile:
    return ServedFile(
        strictjson.take(data, "path", str, what=what),
        strictjson.take(data, "size", int, what=what),
        Digest.parse(strictjson.take(data, "digest", str, what=what)),
        strictjson.take(data, "oid", str, what=what),
        strictjson.take(data, "lfs", bool, what=what),
    )
