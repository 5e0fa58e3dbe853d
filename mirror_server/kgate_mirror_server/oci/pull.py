"""Read publications back from a registry, checked from tag to byte, as an upstream or to a folder.

A tag may point anywhere, so it proves nothing: `sync` compares with its lock, `rebuild` demands
this site's own signatures. Digests bind everything below the tag.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kgate_core.digest import Digest
from kgate_core.errors import Conflict, IntegrityError, InvalidInput, KgateError, NotFound
from kgate_mirror_server.bundle.carried import MAX_BYTES, Carried
from kgate_mirror_server.bundle.upstream import CarriedUpstream
from kgate_mirror_server.oci.credentials import Access, Place
from kgate_mirror_server.oci.registry import Registry
from kgate_mirror_server.oci.shape import CONFIG, INDEX, MANIFEST, PUBLICATION, Descriptor

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from kgate_core.kernel import KernelRef, Revision
    from kgate_mirror_server.ingest.fetch import Progress
    from kgate_mirror_server.oci.registry import Repository
    from kgate_mirror_server.ports import UpstreamFile

_TAG: Final = re.compile(r"v[0-9]+|[0-9a-f]{40}")
_KNOWN: Final = frozenset({INDEX, MANIFEST, CONFIG})


@dataclass(frozen=True, slots=True)
class Found:
    """A publication in a registry."""

    tag: str
    index: Digest
    carried: Carried
    images: Mapping[str, Digest]
    """Image of each variant."""


def publication_tags(repository: Repository) -> list[str]:
    """Return the tags that name publications, versions first."""
    tags = [tag for tag in repository.tags() if _TAG.fullmatch(tag)]
    return sorted(tags, key=lambda tag: (not tag.startswith("v"), tag))


def find(repository: Repository, tag: str | Digest) -> Found:
    """Return the publication behind a tag or an index' digest; raises NotFound, IntegrityError.

    Raises InvalidInput if it is something else than a kernel that kgate pushed.
    """
    index = repository.manifest(tag)
    images: dict[str, Digest] = {}
    artifact: Descriptor | None = None
    if index.descriptor.media_type == INDEX:
        for item in index.descriptors("manifests"):
            variant = item.annotations.get("dev.kgate.variant")
            if variant is None:
                artifact = artifact or item
            else:
                images[variant] = item.digest
    if artifact is None:
        raise InvalidInput(f"{repository.name}:{tag} is not a kernel that kgate pushed")
    manifest = repository.manifest(artifact.digest)
    layers = [item for item in manifest.descriptors("layers") if item.media_type == PUBLICATION]
    if len(layers) != 1 or layers[0].size > MAX_BYTES:
        raise InvalidInput(f"{repository.name}:{tag}: no publication in {artifact.digest}")
    data = b"".join(repository.pull_blob(layers[0].digest, layers[0].size))
    if Digest.of(data) != layers[0].digest:
        raise IntegrityError(
            f"{repository.name}: the registry sent other bytes than {layers[0].digest}",
            hint="its storage is damaged, or somebody changed it: nothing was taken",
        )
    return Found(str(tag), index.descriptor.digest, Carried.parse(data), images)


def find_all(repository: Repository) -> list[Found]:
    """Return every publication in a repository, each index once."""
    found: dict[Digest, Found] = {}
    for tag in publication_tags(repository):
        item = find(repository, tag)
        found.setdefault(item.index, item)
    return list(found.values())


@dataclass(frozen=True, slots=True)
class RegistryBytes:
    """Files that lie in a registry."""

    registry: Registry

    def read(self, repo: KernelRef, digest: Digest, size: int) -> Iterator[bytes]:
        """Yield a file's bytes, unchecked: whoever stores them checks. Raises UpstreamError."""
        return self.registry.repository(repo).pull_blob(digest, size)


class OciUpstream:
    """A HubClient over a registry to which a kgate pushed."""

    def __init__(self, registry: Registry, *, origin: str) -> None:
        self._registry = registry
        self._origin = origin
        self._loaded: dict[KernelRef, CarriedUpstream] = {}

    @property
    def origin(self) -> str:
        """The identity that goes into every attestation: that of the Hub the kernels came from."""
        return self._origin

    def versions(self, repo: KernelRef) -> Mapping[int, Revision]:
        """Return the upstream commit of each version tag."""
        return self._load(repo).versions(repo)

    def files(self, repo: KernelRef, revision: Revision) -> Sequence[UpstreamFile]:
        """List the files of an upstream commit, of all variants that were pushed."""
        return self._load(repo).files(repo, revision)

    def read(self, repo: KernelRef, revision: Revision, file: UpstreamFile) -> Iterator[bytes]:
        """Yield a file's bytes; raises UpstreamError."""
        return self._load(repo).read(repo, revision, file)

    def _load(self, repo: KernelRef) -> CarriedUpstream:
        if repo not in self._loaded:
            found = find_all(self._registry.repository(repo))
            carried = [item.carried for item in found if item.carried.publication.repo == repo]
            for item in carried:
                if item.publication.origin != self._origin:
                    raise Conflict(
                        f"{repo} in {self._registry.place} came from {item.publication.origin},"
                        f" not from {self._origin}",
                        hint="name that one as upstream.origin in kgate.yaml",
                    )
            if not carried:
                raise NotFound(f"{self._registry.place} holds no publication of {repo}")
            files = RegistryBytes(self._registry)
            self._loaded[repo] = CarriedUpstream(self._origin, carried, files)
        return self._loaded[repo]


def open_registry_upstream(url: str, origin: str, ca_file: Path | None) -> OciUpstream:
    """Return the upstream behind `oci://…`; raises InvalidInput, does no request yet."""
    registry = Registry(Place.parse(url), Access(ca_file=ca_file))
    return OciUpstream(registry, origin=origin)


def pull_to(
    repository: Repository, found: Found, folder: Path, progress: Progress
) -> Iterable[Path]:
    """Write a publication's files as a folder of built kernels, checking every byte.

    Yields each file; a folder upstream (`upstream: ./folder`) reads the result.
    """
    item = found.carried.publication
    base = folder / item.repo.org / item.repo.name
    base = base if item.version is None else base / f"v{item.version}"
    for variant in item.variants:
        for file in variant.files:
            path = base / file.path
            _write(path, repository, file.digest, file.size, progress)
            yield path


def _write(
    path: Path, repository: Repository, digest: Digest, size: int, progress: Progress
) -> None:

    partial = path.with_name(f".{path.name}.{os.getpid()}")
    state, written = hashlib.sha256(), 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as stream:
            for chunk in repository.pull_blob(digest, size):
                state.update(chunk)
                written += len(chunk)
                stream.write(chunk)
                progress(len(chunk))
        if written != size or state.hexdigest() != digest.hex:
            raise IntegrityError(
                f"{repository.name}: the registry sent other bytes than {digest}",
                hint="its storage is damaged, or somebody changed it: nothing was taken",
            )
        partial.replace(path)
    except OSError as exc:
        raise KgateError(f"{path}: cannot be written ({exc.strerror})") from exc
    finally:
        partial.unlink(missing_ok=True)
