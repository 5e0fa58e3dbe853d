"""A Hub, or another kgate, as upstream, through huggingface_hub.

Metadata calls go through `HfApi`; bodies are streamed from the resolve address with the library's
own session (its proxies, certificates and headers), because its download functions write every
byte to a cache first. A cut body is resumed with a Range request. Nothing is believed here: sizes
and digests are checked by whoever stores the bytes. The token goes to this upstream's host only.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

import httpx2
import stamina
from huggingface_hub import HfApi, get_session, hf_hub_url
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

from kgate_core.errors import IntegrityError, KgateError, NotFound, TrustError, UpstreamError
from kgate_core.kernel import KernelRef, Revision
from kgate_mirror_server.ports import UpstreamFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

T = TypeVar("T")
ATTEMPTS: Final = 5
TIMEOUT: Final = 30.0  # seconds without a byte
_SLOWEST: Final = 64 * 1024  # bytes a second; a body slower than this is given up
_GRACE: Final = 120.0  # seconds that every body gets besides
_RETRY_STATUS: Final = frozenset({429, 500, 502, 503, 504})
_MAX_FILES: Final = 100_000


class _Retryable(Exception):  # noqa: N818  # stays inside this module
    """The request may succeed if it is made again."""


class HubUpstream:
    """Reads kernel repositories over the Hub's HTTP API."""

    def __init__(self, url: str, *, origin: str, token_file: Path | None = None) -> None:
        self._url = url
        self._origin = origin
        self._token: str | bool = _read_token(token_file)
        self._api = HfApi(endpoint=url, token=self._token, library_name="kgate")

    @property
    def origin(self) -> str:
        """The identity that goes into every attestation."""
        return self._origin

    def versions(self, repo: KernelRef) -> Mapping[int, Revision]:
        """Return what each branch `vN` points at now."""
        refs: Any = self._ask(repo, lambda: self._api.list_repo_refs(str(repo), repo_type="kernel"))
        return {
            int(branch.name[1:]): Revision(branch.target_commit)
            for branch in refs.branches
            if branch.name.startswith("v") and branch.name[1:].isdecimal()
        }

    def files(self, repo: KernelRef, revision: Revision) -> Sequence[UpstreamFile]:
        """List every file of a commit, page by page."""

        def fetch() -> list[UpstreamFile]:
            tree = self._api.list_repo_tree(
                str(repo), recursive=True, revision=str(revision), repo_type="kernel"
            )
            found: list[UpstreamFile] = []
            for item in tree:
                if len(found) >= _MAX_FILES:
                    raise UpstreamError(f"{repo}: the upstream lists over {_MAX_FILES} files")
                if isinstance(item, RepoFile):
                    lfs = item.lfs.sha256 if item.lfs else None
                    found.append(UpstreamFile(item.path, item.size, item.blob_id, lfs))
            return found

        return self._ask(repo, fetch)

    def read(self, repo: KernelRef, revision: Revision, file: UpstreamFile) -> Iterator[bytes]:
        """Yield a file's bytes, resuming a cut body; raises UpstreamError when attempts run out."""
        url = hf_hub_url(
            str(repo),
            file.path,
            repo_type="kernel",
            revision=str(revision),
            endpoint=self._url,
        )
        deadline = time.monotonic() + _GRACE + file.size / _SLOWEST
        offset = 0
        attempts = stamina.retry_context(
            on=_Retryable, attempts=ATTEMPTS, timeout=None, wait_initial=0.2, wait_max=8.0
        )
        try:
            for attempt in attempts:
                with attempt:
                    for chunk in self._stream(url, repo, file, offset):
                        offset += len(chunk)
                        yield chunk
                        _check_progress(file, offset, deadline)
                    _check_complete(file, offset)
        except _Retryable as exc:
            raise UpstreamError(
                f"{repo}: {file.path} could not be fetched from {self._url} in {ATTEMPTS} attempts:"
                f" {exc}",
                hint="run the same command again: what was stored stays stored",
            ) from exc

    def _stream(
        self, url: str, repo: KernelRef, file: UpstreamFile, offset: int
    ) -> Iterator[bytes]:
        headers = build_hf_headers(token=self._token, library_name="kgate")
        # A compressed body has another length than the file: ask for the bytes as they are.
        headers["Accept-Encoding"] = "identity"
        if offset:
            headers["Range"] = f"bytes={offset}-"
        try:
            with get_session().stream(
                "GET", url, headers=headers, timeout=TIMEOUT, follow_redirects=True
            ) as response:
                if response.status_code in _RETRY_STATUS:
                    raise _Retryable(f"HTTP {response.status_code}")
                hf_raise_for_status(response)
                skip = offset if response.status_code == httpx2.codes.OK else 0
                for chunk in response.iter_bytes():
                    if skip >= len(chunk):
                        skip -= len(chunk)
                        continue
                    yield chunk[skip:]
                    skip = 0
        except (httpx2.TransportError, httpx2.StreamError) as exc:
            raise _Retryable(_say(exc)) from exc
        except (HfHubHTTPError, OfflineModeIsEnabled) as exc:
            raise self._translate(exc, f"{repo}: {file.path}") from exc

    def _ask(self, repo: KernelRef, call: Callable[[], T]) -> T:
        attempts = stamina.retry_context(
            on=_Retryable, attempts=ATTEMPTS, timeout=None, wait_initial=0.2, wait_max=8.0
        )
        try:
            for attempt in attempts:
                with attempt:
                    try:
                        return call()
                    except HfHubHTTPError as exc:
                        if exc.response.status_code in _RETRY_STATUS:
                            raise _Retryable(f"HTTP {exc.response.status_code}") from exc
                        raise self._translate(exc, str(repo)) from exc
                    except httpx2.TransportError as exc:
                        raise _Retryable(_say(exc)) from exc
                    except OfflineModeIsEnabled as exc:
                        raise self._translate(exc, str(repo)) from exc
                    except (KeyError, TypeError, ValueError) as exc:
                        raise UpstreamError(
                            f"{repo}: {self._url} does not answer like a Hub ({exc!r})"
                        ) from exc
        except _Retryable as exc:
            raise UpstreamError(
                f"{repo}: {self._url} did not answer in {ATTEMPTS} attempts: {exc}",
                hint=f"check that {urlsplit(self._url).hostname} is reachable from here",
            ) from exc
        raise AssertionError("the retry loop always returns or raises")

    def _translate(self, error: Exception, what: str) -> KgateError:
        match error:
            case GatedRepoError():
                return UpstreamError(
                    f"{what}: the repository is gated",
                    hint="ask for access there and name the token's file: upstream.token_file",
                )
            case RepositoryNotFoundError():
                return NotFound(
                    f"{what}: {self._url} has no such kernel repository",
                    hint="check the spelling; a private repository needs upstream.token_file",
                )
            case RevisionNotFoundError():
                return NotFound(f"{what}: {self._url} has no such revision")
            case EntryNotFoundError():
                return NotFound(f"{what}: {self._url} has no such file")
            case HfHubHTTPError():
                return UpstreamError(f"{what}: HTTP {error.response.status_code} by {self._url}")
            case _:
                return UpstreamError(
                    f"{what}: huggingface_hub is in offline mode",
                    hint="unset HF_HUB_OFFLINE for the process that syncs",
                )


def _check_progress(file: UpstreamFile, offset: int, deadline: float) -> None:
    if offset > file.size:
        raise IntegrityError(f"{file.path}: the upstream sends more than {file.size} bytes")
    if time.monotonic() > deadline:
        raise UpstreamError(
            f"{file.path}: {offset} of {file.size} bytes came, slower than {_SLOWEST} bytes/s"
        )


def _check_complete(file: UpstreamFile, offset: int) -> None:
    if offset < file.size:
        raise _Retryable(f"the body ended after {offset} of {file.size} bytes")


def _say(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _read_token(path: Path | None) -> str | bool:
    # False: without a configured token no token of the user's own login may leak to an upstream.
    if path is None:
        return False
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as exc:
        raise TrustError(f"the upstream token {path} cannot be read ({exc.strerror})") from exc
