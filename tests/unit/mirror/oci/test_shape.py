from __future__ import annotations

import io
import json
import tarfile
from typing import TYPE_CHECKING

import pytest

from kgate_core.digest import Digest
from kgate_mirror_server.bundle.carried import Carried
from kgate_mirror_server.oci.shape import (
    TAR,
    Descriptor,
    platform_of,
    shape_artifact,
    shape_image,
    shape_index,
    shape_referrer,
    tag_of,
)
from kgate_mirror_server.oci.tarlayer import TarLayer
from kgate_mirror_server.ports import Publication, PublishedVariant, ServedFile
from kgate_mirror_server.store.memory import MemoryStore
from tests.trustkit import KERNEL, NOW, manifest_of

if TYPE_CHECKING:
    from kgate_mirror_server.ports import BlobStore

FILES = {
    "__init__.py": b"x",
    "metadata.json": b"{}",
    "deep/er/" + "n" * 120 + ".py": b"long name",
    "empty": b"",
    "large.so": bytes(range(256)) * 5000,
}


def make(store: BlobStore) -> Carried:
    files = []
    for path, data in sorted(FILES.items()):
        store.put(Digest.of(data), len(data), [data])
        full = f"build/torch-cpu/{path}"
        files.append(ServedFile(full, len(data), Digest.of(data), "0" * 40, lfs=False))
    manifest = manifest_of(FILES).digest
    variant = PublishedVariant("torch-cpu", manifest, tuple(files), (), {})
    publication = Publication(
        KERNEL.origin, KERNEL.repo_type, KERNEL.repo, KERNEL.revision, KERNEL.revision, 1,
        "experimental", (variant,), NOW,
    )  # fmt: skip
    return Carried(publication, redirects=False, sizes={})


def test_a_publication_survives_its_own_document() -> None:
    carried = make(MemoryStore())
    assert Carried.parse(carried.to_bytes()) == carried


def test_the_layers_of_the_artifact_are_the_files_themselves() -> None:
    carried = make(MemoryStore())
    shaped = shape_artifact(carried)
    manifest = json.loads(shaped.manifest.data)
    titles = {
        item["annotations"]["org.opencontainers.image.title"]: item["digest"]
        for item in manifest["layers"]
    }
    assert titles.pop("publication.json") == str(Digest.of(carried.to_bytes()))
    expected = {f"build/torch-cpu/{p}": str(Digest.of(d)) for p, d in FILES.items()}
    assert titles == expected


def test_the_tar_of_a_variant_is_the_same_each_time_and_opens_everywhere() -> None:
    store = MemoryStore()
    (variant,) = make(store).publication.variants
    layer = TarLayer(variant, store)
    data = b"".join(layer.read(0))
    assert len(data) == layer.size
    assert Digest.of(data) == layer.digest() == TarLayer(variant, store).digest()
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        files = {m.name: m for m in archive.getmembers() if m.isfile()}
        for path, content in FILES.items():
            member = files[f"build/torch-cpu/{path}"]
            found = archive.extractfile(member)
            assert found is not None
            assert found.read() == content
            assert (member.mode, member.uid, member.mtime) == (0o444, 0, 0)
        folders = [m.name for m in archive.getmembers() if m.isdir()]
    assert folders == [
        "build",
        "build/torch-cpu",
        "build/torch-cpu/deep",
        "build/torch-cpu/deep/er",
    ]


@pytest.mark.parametrize("offset", [0, 1, 511, 512, 513, 1600, 5000, 1_000_000])
def test_the_tar_can_be_read_from_any_offset(offset: int) -> None:
    store = MemoryStore()
    (variant,) = make(store).publication.variants
    layer = TarLayer(variant, store)
    data = b"".join(layer.read(0))
    assert b"".join(layer.read(offset)) == data[offset:]
    assert b"".join(layer.read(layer.size - 3)) == data[-3:]


def test_the_image_is_what_container_runtimes_unpack() -> None:
    store = MemoryStore()
    carried = make(store)
    (variant,) = carried.publication.variants
    layer = TarLayer(variant, store)
    shaped = shape_image(carried, variant, Descriptor(TAR, layer.digest(), layer.size))
    manifest = json.loads(shaped.manifest.data)
    config = json.loads(shaped.documents[0].data)
    assert manifest["config"]["mediaType"] == "application/vnd.oci.image.config.v1+json"
    assert [item["mediaType"] for item in manifest["layers"]] == [TAR]
    assert config["rootfs"]["diff_ids"] == [str(layer.digest())]
    assert (config["architecture"], config["os"]) == ("amd64", "linux")


def test_index_descriptors_bear_no_artifact_type_and_the_artifact_no_platform() -> None:
    store = MemoryStore()
    carried = make(store)
    artifact = shape_artifact(carried).manifest.descriptor
    index = json.loads(shape_index(carried, [artifact]).data)
    assert [set(item) & {"artifactType"} for item in index["manifests"]] == [set()]
    # A runtime that looks for its own platform must pass the artifact over.
    assert index["manifests"][0]["platform"] == {"architecture": "unknown", "os": "unknown"}


def test_attestations_bear_the_annotations_that_cosign_looks_for() -> None:
    carried = make(MemoryStore())
    subject = shape_artifact(carried).manifest.descriptor
    layer = Descriptor("application/vnd.dev.sigstore.bundle.v0.3+json", Digest.of(b"b"), 1)
    shaped = shape_referrer(carried, subject, layer, "https://slsa.dev/verification_summary/v1")
    manifest = json.loads(shaped.manifest.data)
    assert manifest["subject"]["digest"] == str(subject.digest)
    assert manifest["artifactType"] == layer.media_type
    assert manifest["config"]["mediaType"] == "application/vnd.oci.empty.v1+json"
    assert manifest["annotations"]["dev.sigstore.bundle.content"] == "dsse-envelope"
    said = manifest["annotations"]["dev.sigstore.bundle.predicateType"]
    assert said == "https://slsa.dev/verification_summary/v1"


@pytest.mark.parametrize(
    ("variant", "platform"),
    [
        ("torch-cpu", ("amd64", "linux")),
        ("torch213-cxx11-cu130-x86_64-linux", ("amd64", "linux")),
        ("torch213-cxx11-cu130-aarch64-linux", ("arm64", "linux")),
        ("torch213-metal-aarch64-darwin", ("arm64", "darwin")),
    ],
)
def test_nodes_choose_by_platform(variant: str, platform: tuple[str, str]) -> None:
    found = platform_of(variant)
    assert (found["architecture"], found["os"]) == platform


def test_a_publication_without_a_version_is_tagged_by_its_commit() -> None:
    from dataclasses import replace

    carried = make(MemoryStore())
    assert tag_of(carried) == "v1"
    bare = replace(carried, publication=replace(carried.publication, version=None))
    assert tag_of(bare) == str(KERNEL.revision)
