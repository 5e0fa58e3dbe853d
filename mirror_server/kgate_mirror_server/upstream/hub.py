"""A Hub, or another kgate, as upstream, over the Hub's HTTP interface.

Three questions are asked: a repository's refs, a commit's tree, a file's bytes. A cut body is
resumed with a Range request. Nothing is believed here: sizes and digests are checked by whoever
stores the bytes.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from kgate_core.errors import IntegrityError, InvalidInput, UpstreamError
from kgate_core.kernel import KernelRef, RepoType, Revision
from kgate_mirror_server.ports import UpstreamFile
from kgate_mirror_server.upstream.requests import ATTEMPTS, Retryable, retries

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from kgate_mirror_server.upstream.requests import Requests
    from kgate_mirror_server.upstream.voucher import Voucher

_SLOWEST: Final = 64 * 1024  # bytes a second; a body slower than this is given up
_GRACE: Final = 120.0  # seconds that every body gets besides
_MAX_FILES: Final = 100_000
_PARTIAL: Final = 206


class HubUpstream:
    """Reads repositories of one type; those of the same name and another type are never asked."""

    def __init__(
        self,
        requests: Requests,
        *,
        origin: str,
        repo_type: RepoType = RepoType.KERNEL,
        voucher: Voucher | None = None,
    ) -> None:
        self.voucher = voucher
        self._requests = requests
        self._origin = origin
        self._api = f"/api/{repo_type}s"
        # The Hub serves models at its root, everything else below the type's name.
        self._files = "" if repo_type is RepoType.MODEL else f"/{repo_type}s"

    @property
    def origin(self) -> str:
        """The identity that goes into every attestation."""
        return self._origin

    def versions(self, repo: KernelRef) -> Mapping[int, Revision]:
        """Return what each branch `vN` points at now."""
        found: dict[int, Revision] = {}
        for page in self._requests.pages(f"{self._api}/{repo}/refs", str(repo)):
            for branch in self._items(page, "branches", repo):
                name, commit = branch.get("name"), branch.get("targetCommit")
                if isinstance(name, str) and name.startswith("v") and name[1:].isdecimal():
                    found[int(name[1:])] = self._commit(commit, repo)
        return found

    def files(self, repo: KernelRef, revision: Revision) -> Sequence[UpstreamFile]:
        """List every file of a commit, page by page."""
        found: list[UpstreamFile] = []
        path = f"{self._api}/{repo}/tree/{revision}?recursive=true"
        for page in self._requests.pages(path, f"{repo}@{revision.short}"):
            if not isinstance(page, list):
                raise self._strange(repo, "a tree is a list")
            found += [self._file(item, repo) for item in page if _is_file(item)]
            if len(found) > _MAX_FILES:
                raise UpstreamError(f"{repo}: the upstream lists over {_MAX_FILES} files")
        return found

    def read(self, repo: KernelRef, revision: Revision, file: UpstreamFile) -> Iterator[bytes]:
        """Yield a file's bytes, resuming a cut body; raises UpstreamError when attempts run out."""
        return self.read_from(repo, revision, file, 0)

    def read_from(
        self, repo: KernelRef, revision: Revision, file: UpstreamFile, offset: int
    ) -> Iterator[bytes]:
        """Yield a file's bytes from an offset on, as `read` does."""
        url = f"{self._requests.url}{self._files}/{repo}/resolve/{revision}/{quote(file.path)}"
        deadline = time.monotonic() + _GRACE + file.size / _SLOWEST
        try:
            for attempt in retries():
                with attempt:
                    for chunk in self._stream(url, f"{repo}: {file.path}", offset):
                        offset += len(chunk)
                        yield chunk
                        _check_progress(file, offset, deadline)
                    _check_complete(file, offset)
        except Retryable as exc:
            raise UpstreamError(
                f"{repo}: {file.path} could not be fetched from {self._requests.url} in"
                f" {ATTEMPTS} attempts: {exc}",
                hint="run the same command again: what was stored stays stored",
            ) from exc

    def _stream(self, url: str, what: str, offset: int) -> Iterator[bytes]:
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        with self._requests.opened(url, what, headers) as response:
            skip = 0 if response.status_code == _PARTIAL else offset
            for chunk in response.iter_bytes():
                if skip >= len(chunk):
                    skip -= len(chunk)
                    continue
                yield chunk[skip:]
                skip = 0

    def _file(self, item: dict[str, Any], repo: KernelRef) -> UpstreamFile:
        path, size, oid, lfs = (item.get(name) for name in ("path", "size", "oid", "lfs"))
        sha256 = lfs.get("oid") if isinstance(lfs, dict) else None
        if (
            not isinstance(path, str)
            or not isinstance(size, int)
            or size < 0
            or not isinstance(oid, str)
            or not isinstance(sha256, str | None)
        ):
            raise self._strange(repo, f"the entry {str(path)[:80]!r} of its tree is malformed")
        return UpstreamFile(path, size, oid, sha256)

    def _items(self, page: object, name: str, repo: KernelRef) -> list[dict[str, Any]]:
        items = page.get(name) if isinstance(page, dict) else None
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise self._strange(repo, f"its refs have no {name}")
        return items

    def _commit(self, text: object, repo: KernelRef) -> Revision:
        try:
            return Revision(str(text))
        except InvalidInput as exc:
            raise self._strange(repo, exc.message) from exc

    def _strange(self, repo: KernelRef, detail: str) -> UpstreamError:
        return UpstreamError(f"{repo}: {self._requests.url} does not answer like a Hub ({detail})")


def _is_file(item: object) -> bool:
    return isinstance(item, dict) and item.get("type") == "file"


def _check_progress(file: UpstreamFile, offset: int, deadline: float) -> None:
    if offset > file.size:
        raise IntegrityError(f"{file.path}: the upstream sends more than {file.size} bytes")
    if time.monotonic() > deadline:
        raise UpstreamError(
            f"{file.path}: {offset} of {file.size} bytes came, slower than {_SLOWEST} bytes/s"
        )


def _check_complete(file: UpstreamFile, offset: int) -> None:
    if offset < file.size:
        raise Retryable(f"the body ended after {offset} of {file.size} bytes")
