"""Push publications: blobs first, then what names them, the tags last.

A registry that was pushed to before gets what is new only. Nothing is decided here: only what this
site publishes is pushed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kgate_core.bundle import MEDIA_TYPE as SIGSTORE_BUNDLE
from kgate_core.errors import Conflict, NotFound
from kgate_mirror_server.bundle.contents import attestation_layers
from kgate_mirror_server.bundle.streams import read_blob
from kgate_mirror_server.oci.binding import PREDICATE, check_proven, open_binder
from kgate_mirror_server.oci.shape import (
    CYCLONEDX,
    INDEX,
    MANIFEST,
    SERVED,
    TAR,
    Descriptor,
    Document,
    shape_artifact,
    shape_image,
    shape_index,
    shape_referrer,
    tag_of,
)
from kgate_mirror_server.oci.tarlayer import TarLayer
from kgate_mirror_server.ports import EvidenceKind

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from kgate_core.digest import Digest
    from kgate_mirror_server.app import Mirror
    from kgate_mirror_server.bundle.carried import Carried
    from kgate_mirror_server.ingest.fetch import Progress
    from kgate_mirror_server.oci.binding import Binder
    from kgate_mirror_server.oci.registry import Registry, Repository
    from kgate_mirror_server.oci.shape import Shaped
    from kgate_mirror_server.ports import PublishedVariant


@dataclass(slots=True)
class Pushed:
    """Where a publication lies now."""

    repository: str
    index: Digest
    tags: tuple[str, ...]
    images: dict[str, Digest]
    """Image of each variant."""
    referrers: int = 0
    sent_bytes: int = 0


@dataclass(slots=True)
class _Push:
    mirror: Mirror
    repository: Repository
    carried: Carried
    binder: Binder
    progress: Progress
    sent: int = 0
    referrers: int = 0
    images: dict[str, Digest] = field(default_factory=dict)

    def blob(self, layer: Descriptor) -> None:
        store = self.mirror.store

        def opened(offset: int) -> Iterator[bytes]:
            return self.counted(read_blob(store, layer.digest, offset, layer.size - offset))

        self.sent += self.repository.push_blob(layer.digest, layer.size, opened)

    def document(self, document: Document) -> None:
        found = document.descriptor

        def opened(offset: int) -> Iterator[bytes]:
            yield document.data[offset:]

        self.sent += self.repository.push_blob(found.digest, found.size, opened)

    def shaped(self, shaped: Shaped, *, layers: bool) -> Descriptor:
        """Send what a manifest names, then the manifest; returns its descriptor."""
        for document in shaped.documents:
            self.document(document)
        for layer in shaped.layers if layers else ():
            self.blob(layer)
        found = shaped.manifest.descriptor
        self.repository.push_manifest(shaped.manifest.data, MANIFEST, found.digest)
        return found

    def image(self, variant: PublishedVariant) -> Descriptor:
        layer = TarLayer(variant, self.mirror.store)
        digest = layer.digest()
        self.sent += self.repository.push_blob(
            digest, layer.size, lambda offset: self.counted(layer.read(offset))
        )
        shaped = shape_image(self.carried, variant, Descriptor(TAR, digest, layer.size))
        found = self.shaped(shaped, layers=False)
        self.images[variant.variant] = found.digest
        return found

    def attach(self, subject: Descriptor, variant: PublishedVariant) -> None:
        for layer, predicate_type in self.attachments(variant):
            shaped = shape_referrer(self.carried, subject, layer, predicate_type)
            for document in shaped.documents:
                self.document(document)
            self.blob(layer)
            self.repository.attach(shaped.manifest.data, shaped.manifest.descriptor, subject.digest)
            self.referrers += 1

    def bind(self, subject: Descriptor, variants: Sequence[PublishedVariant]) -> None:
        """Attach a signature over the manifest's own digest, unless it is there already."""
        statement = self.binder.statement(self.carried, subject, variants)
        if self.binder.bound(self.repository, subject, statement):
            self.referrers += 1
            return
        document = Document.of(SIGSTORE_BUNDLE, self.binder.bind(self.carried, subject, variants))
        shaped = shape_referrer(self.carried, subject, document.descriptor, PREDICATE)
        for one in (*shaped.documents, document):
            self.document(one)
        self.repository.attach(shaped.manifest.data, shaped.manifest.descriptor, subject.digest)
        self.referrers += 1

    def attachments(self, variant: PublishedVariant) -> Iterator[tuple[Descriptor, str]]:
        yield from attestation_layers(self.carried, variant.bundles, self.mirror)
        sbom = variant.evidence.get(EvidenceKind.SBOM)
        if sbom is not None:
            yield Descriptor(CYCLONEDX, sbom, self.carried.sizes[sbom]), ""
        for kind in (EvidenceKind.MANIFEST, EvidenceKind.IMPORT, EvidenceKind.DECISION):
            if kind in variant.evidence:
                digest = variant.evidence[kind]
                media_type = f"application/vnd.kgate.{kind}.v1+json"
                yield Descriptor(media_type, digest, self.carried.sizes[digest]), ""

    def counted(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self.progress(len(chunk))
            yield chunk


def push(
    mirror: Mirror, registry: Registry, carried: Carried, now: datetime, progress: Progress
) -> Pushed:
    """Push one publication; raises UpstreamError, IntegrityError.

    Raises TrustError if its attestations do not count any more, and Conflict if the repository
    there is another kernel's whose name differs in case only.
    """
    item = carried.publication
    repository = registry.repository(item.repo)
    _check_same_kernel(repository, carried)
    check_proven(mirror, carried, now)
    run = _Push(mirror, repository, carried, open_binder(mirror, now), progress)
    artifact = run.shaped(shape_artifact(carried), layers=True)
    for variant in item.variants:
        run.attach(artifact, variant)
    run.bind(artifact, item.variants)
    images = [(variant, run.image(variant)) for variant in item.variants]
    for variant, image in images:
        run.attach(image, variant)
        run.bind(image, [variant])
    index = shape_index(carried, [artifact, *(image for _, image in images)])
    repository.push_manifest(index.data, INDEX, index.descriptor.digest)
    run.bind(index.descriptor, item.variants)
    # The tags last: until then nobody sees half a publication.
    tags = dict.fromkeys((tag_of(carried), str(item.served)))
    for tag in tags:
        for variant, image in images:
            data = repository.manifest(image.digest).data
            repository.push_manifest(data, MANIFEST, f"{tag}-{variant.variant}")
        repository.push_manifest(index.data, INDEX, tag)
    return Pushed(
        repository.name,
        index.descriptor.digest,
        tuple(tags),
        run.images,
        run.referrers,
        run.sent,
    )


def _check_same_kernel(repository: Repository, carried: Carried) -> None:
    try:
        found = repository.manifest(tag_of(carried)).fields.get("annotations", {})
    except NotFound:
        return
    title = found.get("org.opencontainers.image.title")
    if title != str(carried.publication.repo) or SERVED not in found:
        raise Conflict(
            f"{repository.name} holds {title or 'something else'}, not {carried.publication.repo}",
            hint="registries know lower case only: push one of them into another namespace",
        )
