"""The Hub cache of a pod: where it is, which kernels lie in it, and how files get into it.

Its layout is huggingface_hub's (blobs by their ETag, snapshots of links into them, refs), so that
the stock client finds what is put here. Whether a kernel may run is the gate's business.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kgate_core.errors import IntegrityError, InvalidInput
from kgate_core.manifest import check_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import BinaryIO

    from kgate_client.config import PodConfig
    from kgate_core.kernel import KernelRef, Revision

_VARIANTS: Final = "kernels--*/snapshots/*/build/*"
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_GIT: Final = re.compile(r"[0-9a-f]{40}")
_CHUNK: Final = 1024**2  # bytes


def hub_folder(environ: Mapping[str, str], config: PodConfig) -> Path | None:
    """Return the folder that the stock client uses, None without a home."""
    named = environ.get("KERNELS_CACHE") or environ.get("HF_HUB_CACHE")
    if named:
        return Path(named)
    return None if config.hf_home is None else config.hf_home / "hub"


def cached_variants(folder: Path) -> Iterator[Path]:
    """Yield the variant directories of all cached kernels, sorted."""
    yield from sorted(path for path in folder.glob(_VARIANTS) if path.is_dir())


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file as the mirror's tree lists it."""

    path: str
    """Inside the repository, such as `build/torch-cpu/metadata.json`."""
    size: int
    etag: str
    """sha256 of a large file, git blob id of a small one."""

    def __post_init__(self) -> None:
        check_path(self.path)
        if _SHA256.fullmatch(self.etag) is None and _GIT.fullmatch(self.etag) is None:
            raise InvalidInput(f"{self.path}: {self.etag!r} names no bytes")


@dataclass(frozen=True, slots=True)
class RepoCache:
    """One repository's folder in a Hub cache."""

    folder: Path
    revision: Revision

    @classmethod
    def of(cls, hub: Path, repo: KernelRef, revision: Revision) -> RepoCache:
        """Return the place of a commit of a repository."""
        return cls(hub / f"kernels--{repo.org}--{repo.name}", revision)

    def variant(self, name: str) -> Path:
        """Return where a variant's links lie."""
        return self.folder / "snapshots" / str(self.revision) / "build" / name

    def add(self, file: RemoteFile, download: Callable[[BinaryIO], None]) -> bool:
        """Put a file into its place, downloading it unless its bytes are there.

        Returns whether it was downloaded; raises IntegrityError if the bytes are others.
        """
        blob = self.folder / "blobs" / file.etag
        link = self.folder / "snapshots" / str(self.revision) / file.path
        needed = not _is(blob, file)
        if needed:
            blob.parent.mkdir(parents=True, exist_ok=True)
            temporary = blob.with_name(f"{blob.name}.{os.urandom(8).hex()}.incomplete")
            try:
                with temporary.open("xb") as stream:
                    download(stream)
                if not _is(temporary, file):
                    raise IntegrityError(f"{file.path} is not what the mirror's tree lists")
                temporary.replace(blob)
            finally:
                temporary.unlink(missing_ok=True)
        link.parent.mkdir(parents=True, exist_ok=True)
        target = os.path.relpath(blob, link.parent)
        if not link.is_symlink() or str(link.readlink()) != target:
            link.unlink(missing_ok=True)
            link.symlink_to(target)
        return needed

    def name(self, ref: str) -> None:
        """Let a version lead to this commit, also with the network off.

        The list of the whole repository that huggingface_hub may have cached is taken away: it
        would call a snapshot without the other variants incomplete.
        """
        path = self.folder / "refs" / ref
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{ref}.{os.urandom(8).hex()}")
        temporary.write_text(str(self.revision), encoding="ascii")
        temporary.replace(path)
        (self.folder / "trees" / f"{self.revision}.json").unlink(missing_ok=True)


def remove_variant(variant: Path) -> None:
    """Take a variant out of a Hub cache: its links, and the blobs that nothing else uses."""
    folder = variant.parents[3]
    blobs = {Path(os.path.realpath(path)) for path in variant.rglob("*") if path.is_symlink()}
    shutil.rmtree(variant)
    for parent in (variant.parent, variant.parent.parent):
        with contextlib.suppress(OSError):
            parent.rmdir()  # only where it is empty now
    snapshots = folder / "snapshots"
    used = {Path(os.path.realpath(path)) for path in snapshots.rglob("*") if path.is_symlink()}
    for blob in blobs - used:
        if blob.parent == Path(os.path.realpath(folder / "blobs")):
            blob.unlink(missing_ok=True)


def _is(path: Path, file: RemoteFile) -> bool:
    if not path.is_file() or path.stat().st_size != file.size:
        return False
    if _SHA256.fullmatch(file.etag):
        state = hashlib.sha256()
    else:
        # Git names small files this way; what may run is decided by sha256 in the manifest.
        state = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)
    with path.open("rb") as stream:
        while data := stream.read(_CHUNK):
            state.update(data)
    return state.hexdigest() == file.etag
