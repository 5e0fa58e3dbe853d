"""A plain folder of built kernels as upstream: `<root>/<org>/<name>/[vN/]build/<variant>/…`.

That is what kernel-builder leaves behind. There is no history in a folder, so its commit is the
sha256 over the sorted file list, cut to 40 hex digits: other content, other commit. Symbolic
links are not followed, and bytes are checked against that list again while they are read.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kgate_core.errors import InvalidInput, NotFound, UpstreamError
from kgate_core.kernel import KernelRef, Revision
from kgate_mirror_server.ports import UpstreamFile
from kgate_mirror_server.upstream.gitoid import blob_oid, lfs_pointer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from io import BufferedReader

CHUNK: Final = 1024 * 1024  # bytes
LFS_FROM: Final = 1024 * 1024  # bytes; larger files are listed the way the Hub lists LFS files
_MAX_FILES: Final = 20_000


class FolderUpstream:
    """Reads kernels from a local folder."""

    def __init__(self, root: Path, *, origin: str) -> None:
        self._root = root
        self._origin = origin
        self._listed: dict[tuple[KernelRef, str], tuple[UpstreamFile, ...]] = {}

    @property
    def origin(self) -> str:
        """The identity that goes into every attestation."""
        return self._origin

    def versions(self, repo: KernelRef) -> Mapping[int, Revision]:
        """Return the commit of every version that the folder holds."""
        return {version: self._list(repo, base)[0] for version, base in self._bases(repo).items()}

    def files(self, repo: KernelRef, revision: Revision) -> Sequence[UpstreamFile]:
        """List the files of a commit; raises NotFound if the folder holds another content now."""
        return self._at(repo, revision)[1]

    def read(self, repo: KernelRef, revision: Revision, file: UpstreamFile) -> Iterator[bytes]:
        """Yield a file's bytes; raises UpstreamError if it cannot be read."""
        base, _ = self._at(repo, revision)
        try:
            with _open_regular(base / file.path) as stream:
                while chunk := stream.read(CHUNK):
                    yield chunk
        except OSError as exc:
            raise UpstreamError(f"{repo}: {file.path} cannot be read ({exc.strerror})") from exc

    def _bases(self, repo: KernelRef) -> dict[int, Path]:
        """Return the folder of each version of a repository."""
        home = self._root / repo.org / repo.name
        found: dict[int, Path] = {}
        if not home.is_dir():
            raise NotFound(
                f"{repo} is not in the folder {self._root}",
                hint=f"expected {home}/build/<variant>/metadata.json",
            )
        for child in sorted(home.iterdir()):
            name = child.name
            if name.startswith("v") and name[1:].isdecimal() and (child / "build").is_dir():
                found[int(name[1:])] = child
        if (home / "build").is_dir():
            found.setdefault(_version_of(home, repo), home)
        if not found:
            raise NotFound(f"{repo}: {home} has no build/ folder")
        return found

    def _at(self, repo: KernelRef, revision: Revision) -> tuple[Path, tuple[UpstreamFile, ...]]:
        for base in self._bases(repo).values():
            commit, files = self._list(repo, base)
            if commit == revision:
                return base, files
        raise NotFound(
            f"{repo}: the folder {self._root} does not hold commit {revision} any more",
            hint="a folder has no history: run `kgate lock --upgrade` to take its present content",
        )

    def _list(self, repo: KernelRef, base: Path) -> tuple[Revision, tuple[UpstreamFile, ...]]:
        # Listed once for each process: the pin, the lock and the fetch must see one content, and
        # every byte is checked against this list while it is stored.
        key = (repo, str(base))
        if key not in self._listed:
            self._listed[key] = tuple(_walk(base, repo))
        files = self._listed[key]
        state = hashlib.sha256(b"kgate.dev/folder-commit/v1\0")
        for file in files:
            state.update(f"{file.path}\0{file.size}\0{file.oid}\0{file.lfs_sha256}\n".encode())
        return Revision(state.hexdigest()[:40]), files


def _version_of(home: Path, repo: KernelRef) -> int:
    for path in sorted((home / "build").glob("*/metadata.json")):
        try:
            version = json.loads(path.read_bytes()).get("version")
        except (OSError, ValueError, AttributeError) as exc:
            raise InvalidInput(f"{repo}: {path} is not readable JSON") from exc
        if isinstance(version, int) and not isinstance(version, bool):
            return version
    return 1


def _walk(base: Path, repo: KernelRef) -> Iterator[UpstreamFile]:
    names: list[str] = []
    for folder, children, files in os.walk(base / "build", followlinks=False):
        children.sort()
        # A linked directory is listed like a file: opening it names and refuses it.
        links = [child for child in children if Path(folder, child).is_symlink()]
        names.extend(str(Path(folder, name).relative_to(base)) for name in sorted([*files, *links]))
    if (base / "README.md").is_file():
        names.append("README.md")
    if (base / "kernel-status.toml").is_file():
        names.append("kernel-status.toml")
    if len(names) > _MAX_FILES:
        raise InvalidInput(f"{repo}: more than {_MAX_FILES} files")
    for name in sorted(names):
        path = base / name
        try:
            with _open_regular(path) as stream:
                size = os.fstat(stream.fileno()).st_size
                if size > LFS_FROM:
                    sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
                    yield UpstreamFile(name, size, blob_oid(lfs_pointer(sha256, size)), sha256)
                else:
                    data = stream.read(LFS_FROM + 1)
                    yield UpstreamFile(name, len(data), blob_oid(data), None)
        except OSError as exc:
            raise InvalidInput(
                f"{repo}: {name} is not a plain file ({exc.strerror})",
                hint="symbolic links and special files cannot be mirrored",
            ) from exc


def _open_regular(path: Path) -> BufferedReader:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(0, "not a regular file")
    return os.fdopen(descriptor, "rb")
