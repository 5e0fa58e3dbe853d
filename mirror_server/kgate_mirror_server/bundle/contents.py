"""What goes into a bundle: everything that is published and still proven, and what describes it.

Kernels whose own attestations would not be accepted any more (revoked, expired) are left out and
named. Documents that exist only in transit are written to the site's store, so that a part can be
written again later. Which part holds what is decided in `packing`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from kgate_core import strictjson
from kgate_core.bundle import MEDIA_TYPE as SIGSTORE_BUNDLE
from kgate_core.bundle import Bundle
from kgate_core.digest import Digest
from kgate_core.errors import KgateError
from kgate_core.kernel import RepoType
from kgate_core.statement import Statement
from kgate_core.verify import Expected, Rejected, verify
from kgate_mirror_server.bundle.carried import carry
from kgate_mirror_server.bundle.layout import BLOCK, HeadFile
from kgate_mirror_server.feeds.carrying import snapshot_bytes
from kgate_mirror_server.oci.shape import (
    INDEX,
    REF_NAME,
    Descriptor,
    shape_artifact,
    shape_referrer,
    tag_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from kgate_core.trust import TrustedRoot
    from kgate_mirror_server.app import Mirror
    from kgate_mirror_server.bundle.carried import Carried
    from kgate_mirror_server.ports import Publication, PublishedVariant
    from kgate_signer.trustwriter import TrustSet

TIMESTAMP_ROOM: Final = 8 * BLOCK
"""Bytes for the timestamp, whose signature varies in length: sizes must be known beforehand."""
_OCI_LAYOUT: Final = b'{"imageLayoutVersion":"1.0.0"}'


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A published variant that does not travel, and why."""

    what: str
    reason: str


@dataclass(frozen=True, slots=True)
class Item:
    """One publication that travels."""

    carried: Carried
    document: Digest
    """Of its own document."""
    documents: Mapping[Digest, int]
    """Its own document and what describes it in the image layout, with sizes in bytes."""


@dataclass(frozen=True, slots=True)
class Contents:
    """All that travels, whole: what a receiver holds already is not taken off yet."""

    items: tuple[Item, ...]
    left_out: tuple[LeftOut, ...]
    policy: Digest
    policy_size: int
    head: tuple[HeadFile, ...]
    feed: Digest | None = None
    """The snapshot of advisory feeds, if there is one."""
    feed_size: int = 0

    def blobs(self, held: Container[Digest]) -> dict[Digest, int]:
        """Return every blob to write, documents first, less what the receiver holds."""
        small = {self.policy: self.policy_size}
        if self.feed is not None:
            small[self.feed] = self.feed_size
        files: dict[Digest, int] = {}
        for item in self.items:
            if item.document in held:
                continue
            small |= item.documents
            small |= item.carried.sizes
            files |= item.carried.blobs
        found = small | {digest: size for digest, size in files.items() if digest not in small}
        return {digest: size for digest, size in found.items() if digest not in held}


def gather(
    mirror: Mirror,
    trust: TrustSet,
    trusted: TrustedRoot,
    wanted: Callable[[Publication], bool],
    keep: Callable[[bytes], Digest],
    now: datetime,
) -> Contents:
    """Collect what travels; raises NotFound if the store lacks a document that is published.

    `keep` gets documents that exist in transit only, and returns their digests.
    """
    left_out: list[LeftOut] = []
    items: list[Item] = []
    listed: list[Descriptor] = []
    for publication in sorted(mirror.catalog.publications(), key=lambda item: item.published_at):
        if publication.repo_type is RepoType.MODEL or not wanted(publication):
            continue  # weights have carriers of their own; what executes is what needs the care
        variants = tuple(_proven(mirror, publication, trusted, left_out, now))
        if variants:
            narrowed = replace(publication, variants=variants)
            carried = carry(narrowed, mirror.room, mirror.store)
            items.append(_item(mirror, carried, listed, keep))
    index = {
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [descriptor.to_json() for descriptor in listed],
    }
    head = [
        *((f"trust/{name}", data) for name, data in sorted(trust.files.items())),
        ("oci-layout", _OCI_LAYOUT),
        ("index.json", strictjson.dumps(index)),
    ]
    policy, feed = _read_policy(mirror), snapshot_bytes(mirror)
    return Contents(
        tuple(items),
        tuple(left_out),
        keep(policy),
        len(policy),
        tuple(_head_file(name, data, keep) for name, data in head),
        None if feed is None else keep(feed),
        0 if feed is None else len(feed),
    )


def _read_policy(mirror: Mirror) -> bytes:
    """Return the text of the site's policy and the lanes' own; files follow one another.

    What decides in a lane with a built-in profile is in no file: its canonical JSON, whose digest
    the decisions name, follows the files.
    """
    lanes = mirror.config.lanes
    named = (item.policy for item in lanes.values() if item.policy is not None)
    profiles = {
        name: strictjson.dumps(mirror.rules.of(name).to_json())
        for name, item in sorted(lanes.items())
        if item.profile is not None
    }
    paths = [mirror.config.path(item) for item in dict.fromkeys((mirror.config.policy, *named))]
    try:
        if len(paths) == 1 and paths[0].is_file() and not profiles:
            return paths[0].read_bytes()
        files = [file for path in paths for file in _policy_files(path)]
        texts = [b"# %s\n%s" % (file.name.encode(), file.read_bytes()) for file in files]
    except OSError as exc:
        raise KgateError(f"{exc.filename}: cannot be read ({exc.strerror})") from exc
    texts += [
        b"# lane %s: the built-in profile %s\n%s\n"
        % (name.encode(), str(lanes[name].profile).encode(), data)
        for name, data in profiles.items()
    ]
    return b"---\n".join(texts)


def _policy_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return sorted(item for item in path.iterdir() if item.suffix in {".yaml", ".yml"})


def _proven(
    mirror: Mirror,
    publication: Publication,
    trusted: TrustedRoot,
    left_out: list[LeftOut],
    now: datetime,
) -> Iterator[PublishedVariant]:
    for variant in publication.variants:
        try:
            reason = check_attestations(mirror, publication, variant, trusted, now)
        except KgateError as exc:
            reason = exc.message
        if reason is None:
            yield variant
        else:
            name = f"{publication.repo}@{publication.served.short} {variant.variant}"
            left_out.append(LeftOut(f"{name} in lane {publication.lane}", reason))


def check_attestations(
    mirror: Mirror,
    publication: Publication,
    variant: PublishedVariant,
    trusted: TrustedRoot,
    now: datetime,
) -> str | None:
    """Return why a variant's signed bundles do not count under this trust, or None if they do."""
    verdict = verify(
        Expected(
            variant.variant,
            publication.lane,
            publication.repo,
            publication.served,
            publication.repo_type,
        ),
        mirror.room.manifest(variant.evidence),
        [mirror.room.read(digest) for digest in variant.bundles],
        trusted,
        now=now,
    )
    if isinstance(verdict, Rejected):
        return verdict.message
    signed = (verdict.vsa.kernel.origin, verdict.vsa.upstream_revision, verdict.vsa.manifest)
    if signed != (publication.origin, publication.upstream, variant.manifest):
        return f"signed for {signed[0]} at {signed[1]}, {signed[2]}"
    return None


def _item(
    mirror: Mirror,
    carried: Carried,
    listed: list[Descriptor],
    keep: Callable[[bytes], Digest],
) -> Item:
    """Keep every document that goes with a publication and list it in the layout's index."""
    artifact = shape_artifact(carried)
    item = carried.publication
    name = f"{item.repo}:{tag_of(carried)}"
    found = artifact.manifest.descriptor
    listed.append(replace(found, annotations={**found.annotations, REF_NAME: name}))
    shaped = [artifact]
    for variant in item.variants:
        for layer, predicate_type in attestation_layers(carried, variant.bundles, mirror):
            shaped.append(shape_referrer(carried, found, layer, predicate_type))
            listed.append(shaped[-1].manifest.descriptor)
    documents = {
        keep(document.data): len(document.data)
        for one in shaped
        for document in (*one.documents, one.manifest)
    }
    return Item(carried, Digest.of(carried.to_bytes()), documents)


def attestation_layers(
    carried: Carried, bundles: Sequence[Digest], mirror: Mirror
) -> Iterator[tuple[Descriptor, str]]:
    """Yield a layer for each signed bundle, with its predicate type."""
    for digest in bundles:
        statement = Statement.parse(Bundle.parse(mirror.room.read(digest)).envelope.payload)
        layer = Descriptor(SIGSTORE_BUNDLE, digest, carried.sizes[digest])
        yield layer, statement.predicate_type


def _head_file(path: str, data: bytes, keep: Callable[[bytes], Digest]) -> HeadFile:
    if path == "trust/timestamp.json":
        data = data.ljust(TIMESTAMP_ROOM)
    return HeadFile(path, keep(data), len(data))
