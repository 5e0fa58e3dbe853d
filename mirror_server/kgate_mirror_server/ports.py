"""What the mirror needs from the outside, as small Protocols, and the records that cross them.

Real ones: `upstream/` (Hub, folder), `store/` (disk), `catalog/` (SQL). Each port translates its
library's errors into the KgateError family. Nothing here does any work.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, BinaryIO, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from kgate_core.digest import Digest
    from kgate_core.evidence import Facts
    from kgate_core.kernel import KernelRef, RepoType, Revision


@dataclass(frozen=True, slots=True)
class UpstreamFile:
    """One file as the upstream's tree lists it; nothing of it is believed before it was checked."""

    path: str
    """Path in the repository, such as `build/torch-cpu/metadata.json`."""
    size: int
    oid: str
    """Git blob id in hex: of the content, or of the LFS pointer."""
    lfs_sha256: str | None
    """sha256 of the content in hex for LFS (and Xet) files."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """A pin, turned into a commit."""

    revision: Revision
    committed_at: datetime | None = None


class HubClient(Protocol):
    """An upstream: resolve pins, list files, read bytes. Raises UpstreamError and NotFound."""

    @property
    def origin(self) -> str:
        """The identity that goes into every attestation."""
        ...

    def versions(self, repo: KernelRef) -> Mapping[int, Revision]:
        """Return what each version branch `vN` points at now."""
        ...

    def files(self, repo: KernelRef, revision: Revision) -> Sequence[UpstreamFile]:
        """List every file of a commit."""
        ...

    def read(self, repo: KernelRef, revision: Revision, file: UpstreamFile) -> Iterator[bytes]:
        """Yield a file's bytes in chunks, never more than its promised size plus one chunk."""
        ...


@runtime_checkable
class RangedClient(Protocol):
    """An upstream that can also be asked for the rest of a file."""

    def read_from(
        self, repo: KernelRef, revision: Revision, file: UpstreamFile, offset: int
    ) -> Iterator[bytes]:
        """Yield a file's bytes from an offset on, as `read` does."""
        ...


class BlobStore(Protocol):
    """Bytes by digest. An unverified blob cannot exist in it."""

    def has(self, digest: Digest) -> bool:
        """Return whether the blob is there."""
        ...

    def put(self, digest: Digest, size: int, chunks: Iterable[bytes]) -> None:
        """Store a blob, checking size (bytes) and digest while reading; raises IntegrityError."""
        ...

    def open(self, digest: Digest) -> BinaryIO:
        """Open a blob for reading; raises NotFound."""
        ...

    def path(self, digest: Digest) -> Path:
        """Return a local read-only file with the blob's bytes; raises NotFound."""
        ...


class IntakeState(StrEnum):
    """How far a variant has come on its way in."""

    QUARANTINE = "quarantine"
    """Its bytes are coming in; nothing looked at them yet."""
    SCANNED = "scanned"
    DECIDED = "decided"
    """The policy said yes."""
    DENIED = "denied"


class EvidenceKind(StrEnum):
    """What is kept about a variant; each is a blob named by the catalog."""

    MANIFEST = "manifest"
    METADATA = "metadata"
    SCAN = "scan"
    SBOM = "sbom"
    VULNERABILITIES = "vulnerabilities"
    QUALIFICATION = "qualification"
    IMPORT = "import"
    DECISION = "decision"
    UPSTREAM = "upstream"
    """What another kgate attested about it, as it came from there."""


@dataclass(frozen=True, slots=True)
class ServedFile:
    """One file of a published variant, as clients see it."""

    path: str
    """Path in the repository, such as `build/torch-cpu/metadata.json`."""
    size: int
    digest: Digest
    oid: str
    """Git blob id in hex of the content, or of its LFS pointer if `lfs`."""
    lfs: bool
    """True if clients see it as an LFS file: then its ETag is the sha256, else the git id."""


@dataclass(frozen=True, slots=True)
class PublishedVariant:
    """One variant with everything that had to exist before it could be published."""

    variant: str
    manifest: Digest
    files: tuple[ServedFile, ...]
    bundles: tuple[Digest, ...]
    """Blobs of the signed bundles, the VSAs first."""
    evidence: Mapping[EvidenceKind, Digest]


@dataclass(frozen=True, slots=True)
class Publication:
    """What clients of one lane see of one repository under one revision; never widened."""

    origin: str
    repo_type: RepoType
    repo: KernelRef
    served: Revision
    upstream: Revision
    version: int | None
    """N if it was pinned as `vN`; then the branch `vN` resolves to `served`."""
    lane: str
    variants: tuple[PublishedVariant, ...]
    published_at: datetime
    depends: tuple[str, ...] = ()
    """Kernels that it loads, as `org/name@commit`."""


@dataclass(frozen=True, slots=True)
class Denial:
    """Why a variant may not be used; shown to people, never served."""

    origin: str
    repo_type: RepoType
    repo: KernelRef
    upstream: Revision
    version: int | None
    lane: str
    variant: str
    manifest: Digest | None
    reasons: tuple[Facts, ...]
    """Rule results as JSON objects: rule, outcome, seen, hint."""
    denied_at: datetime
    evidence: Mapping[EvidenceKind, Digest] = field(default_factory=dict)


class Catalog(Protocol):
    """What is published and what was denied. One transaction each; raises Conflict, NotFound."""

    def publish(self, publication: Publication) -> None:
        """Publish; the same content again is no change, other variants under it raise Conflict."""
        ...

    def deny(self, denial: Denial) -> None:
        """Record a denial, replacing an earlier one for the same variant, revision and lane."""
        ...

    def publications(self) -> Sequence[Publication]:
        """Return all publications, sorted by repository, lane and time."""
        ...

    def denials(self) -> Sequence[Denial]:
        """Return all denials that stand."""
        ...

    def generation(self) -> int:
        """Return a number that grows with every change; cheap enough to poll each second."""
        ...
