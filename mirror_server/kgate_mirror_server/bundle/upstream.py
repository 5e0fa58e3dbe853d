"""Publications that another site carried here, as an upstream: `sync` admits them like any other.

Files come from this site's own store, where they were verified before. What the sender decided
plays no part: scanner, policy and keys are this site's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from kgate_core.errors import Conflict, NotFound
from kgate_mirror_server.bundle.streams import read_blob
from kgate_mirror_server.ingest.resolve import STATUS_FILE
from kgate_mirror_server.ports import UpstreamFile

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from kgate_core.digest import Digest
    from kgate_core.kernel import KernelRef, Revision
    from kgate_mirror_server.bundle.carried import Carried
    from kgate_mirror_server.ports import BlobStore


class Bytes(Protocol):
    """Where the files of carried publications are."""

    def read(self, repo: KernelRef, digest: Digest, size: int) -> Iterator[bytes]:
        """Yield a file's bytes; raises NotFound, UpstreamError."""
        ...


@dataclass(frozen=True, slots=True)
class StoredBytes:
    """Files that are in a blob store already."""

    store: BlobStore

    def read(self, repo: KernelRef, digest: Digest, size: int) -> Iterator[bytes]:  # noqa: ARG002  # the port's signature
        """Yield a file's bytes; raises NotFound."""
        return read_blob(self.store, digest, 0, size)


class CarriedUpstream:
    """A HubClient over carried publications of one origin."""

    def __init__(self, origin: str, carried: Sequence[Carried], files: Bytes) -> None:
        """Index the publications; raises Conflict if two disagree about a file of one commit."""
        self._origin = origin
        self._bytes = files
        self._versions: dict[KernelRef, dict[int, Revision]] = {}
        self._files: dict[tuple[KernelRef, Revision], dict[str, UpstreamFile]] = {}
        self._digests: dict[tuple[KernelRef, Revision, str], Digest] = {}
        for item in carried:
            self._add(item)

    @property
    def origin(self) -> str:
        """The identity that the sender's attestations state."""
        return self._origin

    def versions(self, repo: KernelRef) -> Mapping[int, Revision]:
        """Return the upstream commit of each version that was carried; raises NotFound."""
        if repo not in self._versions:
            raise NotFound(f"{repo} was not carried here")
        return self._versions[repo]

    def files(self, repo: KernelRef, revision: Revision) -> Sequence[UpstreamFile]:
        """List the files of the variants that were carried; raises NotFound."""
        found = self._files.get((repo, revision))
        if found is None:
            raise NotFound(f"{repo}@{revision.short} was not carried here")
        return tuple(file for _, file in sorted(found.items()))

    def read(self, repo: KernelRef, revision: Revision, file: UpstreamFile) -> Iterator[bytes]:
        """Yield a file's bytes; raises NotFound, UpstreamError."""
        digest = self._digests.get((repo, revision, file.path))
        if digest is None:
            return iter(())  # kernel-status.toml: that it exists is all that matters
        return self._bytes.read(repo, digest, file.size)

    def _add(self, carried: Carried) -> None:
        item = carried.publication
        versions = self._versions.setdefault(item.repo, {})
        if item.version is not None:
            versions[item.version] = item.upstream
        files = self._files.setdefault((item.repo, item.upstream), {})
        for file in (file for variant in item.variants for file in variant.files):
            sha256 = file.digest.hex if file.lfs else None
            listed = UpstreamFile(file.path, file.size, file.oid, sha256)
            key = (item.repo, item.upstream, file.path)
            if self._digests.setdefault(key, file.digest) != file.digest:
                raise Conflict(
                    f"{item.repo}@{item.upstream.short}: {file.path} came with two contents"
                )
            files[file.path] = listed
        if carried.redirects:
            files[STATUS_FILE] = UpstreamFile(STATUS_FILE, 0, "", None)
