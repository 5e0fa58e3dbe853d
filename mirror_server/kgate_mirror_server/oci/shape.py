"""How a publication looks in an OCI registry or image layout: documents and their digests.

One *artifact* per publication holds the files as they are (the digest of a layer is the digest of
the file, so nothing is stored twice), one *image* per variant holds the same files in a tar layer
that container runtimes mount, and an *index* names them all. SBOM and attestations are referrers
(`subject`, OCI image specification 1.1). Descriptors in an index bear no `artifactType`: older
skopeo drops the field and with it the digest. Nothing is read or sent here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from kgate_core import strictjson
from kgate_core.bundle import MEDIA_TYPE as SIGSTORE_BUNDLE
from kgate_core.clock import write_time
from kgate_core.digest import Digest
from kgate_core.kernel import Variant

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kgate_mirror_server.bundle.carried import Carried
    from kgate_mirror_server.ports import PublishedVariant

INDEX: Final = "application/vnd.oci.image.index.v1+json"
MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
CONFIG: Final = "application/vnd.oci.image.config.v1+json"
EMPTY: Final = "application/vnd.oci.empty.v1+json"
TAR: Final = "application/vnd.oci.image.layer.v1.tar"
KERNEL: Final = "application/vnd.kgate.kernel.v1"
PUBLICATION: Final = "application/vnd.kgate.publication.v1+json"
FILE: Final = "application/vnd.kgate.file.v1"
CYCLONEDX: Final = "application/vnd.cyclonedx+json"
TITLE: Final = "org.opencontainers.image.title"
REF_NAME: Final = "org.opencontainers.image.ref.name"
CREATED: Final = "org.opencontainers.image.created"
VARIANT: Final = "dev.kgate.variant"
SERVED: Final = "dev.kgate.served"
EMPTY_DATA: Final = b"{}"
_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}
_UNKNOWN: Final = {"architecture": "unknown", "os": "unknown"}


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What points at a blob or a manifest: media type, digest, size in bytes, annotations."""

    media_type: str
    digest: Digest
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict)
    platform: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the descriptor as a JSON object without empty fields."""
        data: dict[str, Any] = {
            "mediaType": self.media_type,
            "digest": str(self.digest),
            "size": self.size,
        }
        if self.annotations:
            data["annotations"] = dict(self.annotations)
        if self.platform:
            data["platform"] = dict(self.platform)
        return data


@dataclass(frozen=True, slots=True)
class Document:
    """Bytes with the descriptor that points at them."""

    descriptor: Descriptor
    data: bytes

    @classmethod
    def of(cls, media_type: str, data: bytes, **more: Mapping[str, str]) -> Document:
        """Return a document of this media type."""
        return cls(Descriptor(media_type, Digest.of(data), len(data), **more), data)


@dataclass(frozen=True, slots=True)
class Shaped:
    """A manifest, the small documents that it names, and the stored blobs that it names."""

    manifest: Document
    documents: tuple[Document, ...]
    layers: tuple[Descriptor, ...]


def shape_artifact(carried: Carried) -> Shaped:
    """Return the artifact of a publication: its document, then every file under its full path."""
    item = carried.publication
    document = Document.of(PUBLICATION, carried.to_bytes(), annotations={TITLE: "publication.json"})
    layers = tuple(
        Descriptor(FILE, file.digest, file.size, {TITLE: file.path})
        for variant in item.variants
        for file in variant.files
    )
    labels = _labels(carried)
    config = Document.of(CONFIG, _config(carried, labels, (document.descriptor, *layers), _UNKNOWN))
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": KERNEL,
        "config": config.descriptor.to_json(),
        "layers": [layer.to_json() for layer in (document.descriptor, *layers)],
        "annotations": labels,
    }
    return Shaped(
        Document.of(MANIFEST, strictjson.dumps(manifest), platform=_UNKNOWN),
        (document, config),
        layers,
    )


def shape_image(carried: Carried, variant: PublishedVariant, layer: Descriptor) -> Shaped:
    """Return the mountable image of one variant around its tar layer."""
    labels = _labels(carried) | {VARIANT: variant.variant}
    platform = platform_of(variant.variant)
    config = Document.of(CONFIG, _config(carried, labels, (layer,), platform))
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config.descriptor.to_json(),
        "layers": [layer.to_json()],
        "annotations": labels,
    }
    return Shaped(
        Document.of(
            MANIFEST,
            strictjson.dumps(manifest),
            annotations={VARIANT: variant.variant},
            platform=platform,
        ),
        (config,),
        (layer,),
    )


def shape_index(carried: Carried, manifests: Sequence[Descriptor]) -> Document:
    """Return the index over the artifact and the images."""
    index = {
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [item.to_json() for item in manifests],
        "annotations": _labels(carried),
    }
    return Document.of(INDEX, strictjson.dumps(index))


def shape_referrer(
    carried: Carried, subject: Descriptor, layer: Descriptor, predicate_type: str = ""
) -> Shaped:
    """Return what attaches one attestation or SBOM to a manifest.

    Annotations of signed bundles are those that cosign writes and looks for.
    """
    annotations = {CREATED: write_time(carried.publication.published_at)}
    if layer.media_type == SIGSTORE_BUNDLE:
        annotations |= {
            "dev.sigstore.bundle.content": "dsse-envelope",
            "dev.sigstore.bundle.predicateType": predicate_type,
        }
    empty = Document.of(EMPTY, EMPTY_DATA)
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": layer.media_type,
        "config": empty.descriptor.to_json(),
        "layers": [layer.to_json()],
        "subject": Descriptor(subject.media_type, subject.digest, subject.size).to_json(),
        "annotations": annotations,
    }
    return Shaped(
        Document.of(MANIFEST, strictjson.dumps(manifest), annotations=annotations),
        (empty,),
        (layer,),
    )


def platform_of(variant: str) -> dict[str, str]:
    """Return the platform that nodes choose by; without one in the name it is the common one."""
    parsed = Variant.parse(variant)
    cpu = _ARCHITECTURES.get(parsed.cpu or "x86_64", parsed.cpu or "unknown")
    return {"architecture": cpu, "os": parsed.os or "linux"}


def tag_of(carried: Carried) -> str:
    """Return the tag of a publication: its version branch, or its served commit."""
    item = carried.publication
    return str(item.served) if item.version is None else f"v{item.version}"


def _config(
    carried: Carried,
    labels: Mapping[str, str],
    layers: Sequence[Descriptor],
    platform: Mapping[str, str],
) -> bytes:
    # The layers are not compressed: an uncompressed layer's diff_id is its own digest.
    created = write_time(carried.publication.published_at)
    return strictjson.dumps(
        {
            **platform,
            "created": created,
            "config": {"Labels": dict(labels)},
            "rootfs": {"type": "layers", "diff_ids": [str(layer.digest) for layer in layers]},
            "history": [{"created": created, "created_by": "kgate"} for _ in layers],
        }
    )


def _labels(carried: Carried) -> dict[str, str]:
    item = carried.publication
    labels = {
        CREATED: write_time(item.published_at),
        "org.opencontainers.image.title": str(item.repo),
        "org.opencontainers.image.revision": str(item.upstream),
        "org.opencontainers.image.source": f"{item.origin}/{item.repo}",
        SERVED: str(item.served),
        "dev.kgate.lane": item.lane,
    }
    if item.version is not None:
        labels["org.opencontainers.image.version"] = f"v{item.version}"
    return labels
