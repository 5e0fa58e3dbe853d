"""Bring the files of one build variant into the blob store, checked against what upstream promised.

LFS files are checked by their sha256, small files by git's blob id, all by size, while they are
read: bytes that differ are never stored. What is in the store already is not fetched again, so a
killed run resumes. Whether the files are any good is not asked here.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from kgate_core.digest import Digest
from kgate_core.errors import IntegrityError, InvalidInput, KgateError, NotFound
from kgate_core.kernel import Variant, folder_of
from kgate_core.manifest import FileEntry, Manifest, check_path
from kgate_mirror_server.ports import RangedClient, ServedFile, UpstreamFile
from kgate_mirror_server.store.incoming import Resuming
from kgate_mirror_server.upstream.gitoid import blob_oid

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from kgate_core.kernel import KernelRef, Revision
    from kgate_core.lock import Lock
    from kgate_mirror_server.ports import BlobStore, HubClient

S = TypeVar("S")
T = TypeVar("T")
SMALL_FILE: Final = 64 * 1024**2  # bytes; a non-LFS file is held in memory to learn its sha256
RESUMED: Final = 8 * 1024**2  # bytes; what came of larger files outlives a killed run
PARALLEL: Final = 4  # files in flight; more only helps far-away upstreams


Progress = Callable[[int], None]
"""Told how many bytes came in, from any thread."""


@dataclass(frozen=True, slots=True)
class DescribedVariant:
    """One variant as upstream promises it: small files are in the store, large ones maybe not."""

    variant: Variant
    manifest: Manifest
    files: tuple[ServedFile, ...]
    fetched_bytes: int
    """Bytes that had to come from upstream to say this much."""


def bytes_ahead(store: BlobStore, lock: Lock) -> int:
    """Return how many bytes a sync of the lock may have to fetch, before any of it has begun.

    A variant whose manifest is stored was fetched before. Files that variants share count for each.
    """
    return sum(
        variant.size
        for kernel in lock.kernels
        for variant in kernel.variants.values()
        if not store.has(variant.manifest)
    )


class Described(Protocol):
    """Files as upstream promises them."""

    @property
    def files(self) -> tuple[ServedFile, ...]:
        """All of them."""
        ...


def select_variants(
    repo: KernelRef, files: Sequence[UpstreamFile], patterns: Sequence[str]
) -> dict[str, list[UpstreamFile]]:
    """Group upstream's files by build variant and keep the variants that a pattern names.

    Raises InvalidInput for a variant directory that no client could read, NotFound if no variant
    is left. Files outside `build/` belong to no variant and are not mirrored.
    """
    found: dict[str, list[UpstreamFile]] = {}
    for file in files:
        parts = file.path.split("/", 2)
        if parts[0] == "build" and len(parts) == 3:  # noqa: PLR2004  # build / variant / file
            found.setdefault(parts[1], []).append(file)
    chosen = {
        name: items
        for name, items in sorted(found.items())
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
    }
    if not chosen:
        offered = ", ".join(sorted(found)) or "none at all"
        raise NotFound(
            f"{repo}: no build variant matches {', '.join(patterns)}",
            hint=f"upstream offers {offered}",
        )
    for name in chosen:
        Variant.parse(name)
    return chosen


def describe_variant(
    upstream: HubClient,
    store: BlobStore,
    repo: KernelRef,
    revision: Revision,
    variant: str,
    files: Sequence[UpstreamFile],
    progress: Progress,
) -> DescribedVariant:
    """Fetch, check and store the small files; believe the promised sha256 of the large ones.

    The promise is checked when `fetch_large` stores them. Raises IntegrityError if upstream sends
    other bytes than it listed, UpstreamError if it does not answer, InvalidInput for paths that
    cannot be kept apart.
    """
    manifest, served, fetched = describe_files(
        upstream, store, repo, revision, files, folder_of(variant), progress
    )
    return DescribedVariant(Variant.parse(variant), manifest, served, fetched)


def describe_files(
    upstream: HubClient,
    store: BlobStore,
    repo: KernelRef,
    revision: Revision,
    files: Sequence[UpstreamFile],
    prefix: str,
    progress: Progress,
) -> tuple[Manifest, tuple[ServedFile, ...], int]:
    """Return the files below a prefix as `describe_variant` does, and the bytes that came."""
    for file in files:
        check_path(file.path)

    def describe(file: UpstreamFile) -> tuple[ServedFile, int]:
        if file.lfs_sha256 is None:
            return _fetch_small(upstream, store, repo, revision, file, progress)
        return ServedFile(file.path, file.size, Digest(file.lfs_sha256), file.oid, lfs=True), 0

    described = _in_parallel(describe, files)
    manifest = Manifest.of(
        FileEntry(file.path.removeprefix(prefix), file.size, file.digest) for file, _ in described
    )
    served = tuple(sorted((file for file, _ in described), key=lambda file: file.path))
    return manifest, served, sum(count for _, count in described)


def fetch_large(
    upstream: HubClient,
    store: BlobStore,
    repo: KernelRef,
    revision: Revision,
    described: Described,
    progress: Progress,
) -> int:
    """Store every LFS file that is missing; return the bytes that came. Raises as above."""

    def fetch(served: ServedFile) -> int:
        file = UpstreamFile(served.path, served.size, served.oid, served.digest.hex)
        if store.has(served.digest):
            return 0
        came = 0

        def note(count: int) -> None:
            nonlocal came
            came += count
            progress(count)

        ranged = upstream if isinstance(upstream, RangedClient) else None
        try:
            if ranged is not None and served.size >= RESUMED and isinstance(store, Resuming):

                def rest(offset: int) -> Iterator[bytes]:
                    return _counted(ranged.read_from(repo, revision, file, offset), note)

                store.resume(served.digest, served.size, rest)
            else:
                chunks = _counted(upstream.read(repo, revision, file), note)
                store.put(served.digest, served.size, chunks)
        except IntegrityError as exc:
            raise IntegrityError(
                f"{repo}@{revision.short}: {file.path}: {exc.message}",
                hint="upstream sent other bytes than its tree promises; nothing was stored",
            ) from exc
        return came  # nothing if another process stored it meanwhile

    return sum(_in_parallel(fetch, [file for file in described.files if file.lfs]))


def fetch_ahead(
    upstream: HubClient,
    store: BlobStore,
    repo: KernelRef,
    revision: Revision,
    several: Iterable[Described],
    progress: Progress,
) -> int:
    """Store the large files of several variants side by side; return the bytes that came.

    Raises nothing: what could not be had is asked for again with its variant, which says why.
    """

    def fetch(described: Described) -> int:
        try:
            return fetch_large(upstream, store, repo, revision, described, progress)
        except KgateError:
            return 0

    return sum(_in_parallel(fetch, list(several)))


def _in_parallel(work: Callable[[S], T], items: Sequence[S]) -> list[T]:
    with ThreadPoolExecutor(PARALLEL, thread_name_prefix="fetch") as pool:
        jobs = [pool.submit(work, item) for item in items]
        try:
            return [job.result() for job in jobs]
        except BaseException:
            # The first failure decides; what already streams is given up at its next chunk.
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _fetch_small(
    upstream: HubClient,
    store: BlobStore,
    repo: KernelRef,
    revision: Revision,
    file: UpstreamFile,
    progress: Progress,
) -> tuple[ServedFile, int]:
    if file.size > SMALL_FILE:
        raise InvalidInput(
            f"{repo}: {file.path} has {file.size} bytes and is not an LFS file",
            hint=f"files over {SMALL_FILE} bytes must be stored with LFS or Xet upstream",
        )
    data = bytearray()
    for chunk in _counted(upstream.read(repo, revision, file), progress):
        data += chunk
        if len(data) > file.size:
            break
    what = f"{repo}@{revision.short}: {file.path}"
    if len(data) != file.size:
        raise IntegrityError(f"{what}: {len(data)} bytes came, the tree promises {file.size}")
    if (oid := blob_oid(bytes(data))) != file.oid:
        raise IntegrityError(
            f"{what}: the bytes have the git id {oid}, the tree promises {file.oid}",
            hint="upstream sent other bytes than its tree promises; nothing was stored",
        )
    digest = Digest.of(data)
    if not store.has(digest):
        store.put(digest, len(data), [bytes(data)])
    return ServedFile(file.path, file.size, digest, file.oid, lfs=False), len(data)


def _counted(chunks: Iterable[bytes], progress: Progress) -> Iterator[bytes]:
    for chunk in chunks:
        progress(len(chunk))
        yield chunk
