"""Proves that signed evidence and stored blobs stand behind a catalog row.

T16 in docs/threat-model.md: a row alone proves nothing, for whoever can write to the database could
add one. So each published variant is proven before it is served: its manifest blob, its bundles
against the mirror's trusted root, and every file of the row against the manifest. Large files are
looked at here and read when they are first served.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kgate_core.errors import KgateError
from kgate_core.kernel import folder_of
from kgate_core.manifest import Manifest
from kgate_core.verify import Expected, Verified, verify
from kgate_mirror_server.serve import gitids

if TYPE_CHECKING:
    from datetime import datetime

    from kgate_core.digest import Digest
    from kgate_core.trust import TrustedRoot
    from kgate_mirror_server.ports import BlobStore, Publication, PublishedVariant, ServedFile
    from kgate_mirror_server.serve.blobguard import BlobGuard

MAX_DOCUMENT: Final = 8 * 1024 * 1024  # bytes of a manifest or bundle blob, as strictjson reads
MAX_PLAIN: Final = 64 * 1024 * 1024  # bytes of a file that is no LFS file; the Hub allows 10 MB


@dataclass(frozen=True, slots=True)
class Proof:
    """A variant that may be served, with what its attestation answer is made of."""

    manifest: bytes
    bundles: tuple[bytes, ...]
    metadata_id: str
    valid_until: datetime


@dataclass(frozen=True, slots=True)
class Unproven:
    """A variant that may not be served, and why."""

    reason: str


def prove(
    publication: Publication,
    item: PublishedVariant,
    store: BlobStore,
    guard: BlobGuard,
    trusted: TrustedRoot,
    *,
    now: datetime,
) -> Proof | Unproven:
    """Check one published variant; an error on the way is a reason not to serve it."""
    try:
        # 1. The manifest is there and is the one that the row names.
        raw = _read(store, item.manifest)
        manifest = Manifest.parse(raw)
        if manifest.digest != item.manifest:
            return Unproven(f"the manifest {item.manifest} is damaged")
        # 2. The bundles sign exactly this variant, as served, for this lane.
        bundles = tuple(_read(store, digest) for digest in item.bundles)
        expected = Expected(
            item.variant,
            publication.lane,
            publication.repo,
            publication.served,
            publication.repo_type,
        )
        verdict = verify(expected, manifest, bundles, trusted, now=now)
        if not isinstance(verdict, Verified):
            return Unproven(f"{verdict.reason}: {verdict.message}")
        vsa = verdict.vsa
        if (vsa.kernel.origin, vsa.upstream_revision) != (publication.origin, publication.upstream):
            return Unproven(
                f"signed for {vsa.kernel.origin} at {vsa.upstream_revision}, the row says"
                f" {publication.origin} at {publication.upstream}"
            )
        # 3. The row lists the files of the manifest, no more, no less, under their own ids.
        if reason := _compare(item, manifest):
            return Unproven(reason)
        for file in item.files:
            if reason := _check_file(file, guard):
                return Unproven(reason)
    except KgateError as exc:
        return Unproven(exc.message)
    hints = [signer.partition(":")[2] for signer in verdict.signers]
    valid_until = min(vsa.valid_until, *(trusted.keys[hint].valid_until for hint in hints))
    return Proof(raw, bundles, vsa.metadata_id, valid_until)


def _read(store: BlobStore, digest: Digest) -> bytes:
    with store.open(digest) as file:
        data = file.read(MAX_DOCUMENT + 1)
    if type(digest).of(data) != digest:
        raise KgateError(f"the blob {digest} is damaged or too large")
    return data


def _compare(item: PublishedVariant, manifest: Manifest) -> str | None:
    served = {file.path: (file.size, file.digest) for file in item.files}
    signed = {
        f"{folder_of(item.variant)}{entry.path}": (entry.size, entry.digest)
        for entry in manifest.files
    }
    if len(served) != len(item.files) or served != signed:
        return "the row's files are not those of the signed manifest"
    return None


def _check_file(file: ServedFile, guard: BlobGuard) -> str | None:
    if reason := guard.look(file.digest, file.size):
        return reason
    if file.lfs:
        expected = gitids.blob_id(gitids.pointer(file.digest, file.size))
    elif file.size > MAX_PLAIN:
        return f"{file.path} has {file.size} bytes and is no LFS file"
    else:
        expected = gitids.blob_id(guard.check(file.digest, file.size).read_bytes())
    # Clients name files in their caches by this id: two files may never share one.
    return None if file.oid == expected else f"{file.path} has a git id that is not its own"
