"""Asks the mirror for attestations and trust metadata, over plain HTTP of the standard library.

Small documents, short time limits, one host: a redirect elsewhere is refused and the token goes
nowhere else. It believes nothing that it brings; it opens no socket when offline.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlsplit

from kgate_core.errors import IntegrityError, KgateError, NotFound, UpstreamError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from http.client import HTTPMessage
    from pathlib import Path
    from typing import IO, BinaryIO

    from kgate_client.config import PodConfig

PUBLIC_HUB: Final = "https://huggingface.co"  # where the client goes without HF_ENDPOINT
API: Final = "/api/kgate/v1"
TIMEOUT: Final = 5.0  # seconds for one request
PROBE_TIMEOUT: Final = 2.0  # seconds to get a connection when asking whether anybody is there
REMEMBER_DEAD: Final = 30.0  # seconds in which a dead endpoint is not asked again
MAX_ATTESTATIONS: Final = 16 * 1024**2  # bytes
MAX_LOG: Final = 16 * 1024**2  # bytes of log entries
MAX_HUB: Final = 32 * 1024**2  # bytes; the tree of a repository with thousands of files
CHUNK: Final = 1024**2  # bytes read at a time
MAX_TRUST: Final = 512_000  # bytes, as core/tuf.py reads at most
_NOT_FOUND: Final = 404
_MAX_REASON: Final = 4096  # bytes of an error's body that are read


class _SameHostRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        before, after = urlsplit(req.full_url), urlsplit(newurl)
        if (before.scheme, before.netloc) != (after.scheme, after.netloc):
            return None  # urllib then raises the 3xx as an HTTPError
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@dataclass(slots=True)
class Channel:
    """The pod's side of the mirror's `/api/kgate/v1`."""

    endpoint: str
    token: Callable[[], str | None] = field(default=lambda: None, repr=False)
    ca_bundle: Path | None = None
    monotonic: Callable[[], float] = time.monotonic
    _dead_until: float = field(default=float("-inf"), repr=False)
    _dead_because: str = ""
    _opener: urllib.request.OpenerDirector | None = field(default=None, repr=False)

    @classmethod
    def of(cls, config: PodConfig) -> Channel | None:
        """Return the channel that a configuration allows: none when offline or without endpoint."""
        if config.offline or config.endpoint is None:
            return None
        return cls(config.endpoint, lambda: _token(config), config.ca_bundle)

    def attestations(self, name: str) -> bytes:
        """Fetch `org/name/<revision>/<variant>` or `by-manifest/<hex>`.

        Raises NotFound, UpstreamError.
        """
        return self._get(f"{API}/attestations/{quote(name)}", MAX_ATTESTATIONS)

    def trust(self, name: str) -> bytes:
        """Fetch one trust document such as `timestamp.json`; raises NotFound, UpstreamError."""
        return self._get(f"{API}/trust/{quote(name)}", MAX_TRUST)

    def log(self, after: str) -> bytes:
        """Fetch the publication log's entries after a head; raises NotFound, UpstreamError."""
        return self._get(f"{API}/log/{quote(after)}", MAX_LOG)

    def probe(self) -> str:
        """Return why nobody can be reached at the endpoint, or nothing if somebody answers.

        Only a connection is made. A dead endpoint is remembered for half a minute, so that a
        model with many layers does not wait for each of them.
        """
        if self.monotonic() < self._dead_until:
            return self._dead_because
        host, port = _first_hop(self.endpoint)
        try:
            socket.create_connection((host, port), PROBE_TIMEOUT).close()
        except OSError as exc:
            return self._mark_dead(f"no connection to {host}:{port} ({exc})")
        return ""

    def _mark_dead(self, because: str) -> str:
        self._dead_until = self.monotonic() + REMEMBER_DEAD
        self._dead_because = because
        return because

    def hub(self, path: str) -> bytes:
        """Fetch a JSON answer of the Hub's API about kernels; raises NotFound, UpstreamError."""
        return self._get(f"/api/kernels/{path}", MAX_HUB)

    def download(self, path: str, size: int, target: BinaryIO) -> None:
        """Write a kernel's file to `target`; raises IntegrityError unless it has `size` bytes.

        Raises NotFound and UpstreamError as well; what was written then is of no use.
        """
        left = size
        with self._answer(f"/kernels/{quote(path)}") as response:
            while left and (data := response.read(min(left, CHUNK))):
                try:
                    target.write(data)
                except OSError as exc:
                    raise KgateError(f"{path} cannot be kept: {exc}") from exc
                left -= len(data)
            if left or response.read(1):
                raise IntegrityError(f"{path} does not have the {size} bytes that were promised")

    def _get(self, path: str, limit: int) -> bytes:
        with self._answer(path) as response:
            data: bytes = response.read(limit + 1)
        if len(data) > limit:
            raise UpstreamError(f"{path} has more than {limit} bytes")
        return data

    @contextlib.contextmanager
    def _answer(self, path: str) -> Iterator[Any]:
        if self.monotonic() < self._dead_until:
            raise UpstreamError(self._dead_because)
        headers = {"Accept": "*/*", "User-Agent": "kgate-client"}
        if token := self.token():
            headers["Authorization"] = f"Bearer {token}"
        try:
            request = urllib.request.Request(  # noqa: S310  # its scheme is checked next
                self.endpoint + path, headers=headers
            )
            if request.type not in {"http", "https"}:
                raise UpstreamError(f"the endpoint {self.endpoint} is not http or https")
            with self._open(request) as response:
                yield response
        except urllib.error.HTTPError as exc:
            with exc:
                raise _refusal(exc, path) from exc
        except (OSError, ValueError, http.client.HTTPException) as exc:
            # Timeouts, refused connections, cut answers, bad certificates, URLs that are none.
            self._mark_dead(f"{self.endpoint} does not answer ({exc})")
            raise UpstreamError(self._dead_because) from exc

    def _open(self, request: urllib.request.Request) -> Any:  # noqa: ANN401  # urllib's own type
        if self._opener is None:
            handlers: list[urllib.request.BaseHandler] = [_SameHostRedirects()]
            if request.type == "https":
                cafile = None if self.ca_bundle is None else str(self.ca_bundle)
                context = ssl.create_default_context(cafile=cafile)
                handlers.append(urllib.request.HTTPSHandler(context=context))
            self._opener = urllib.request.build_opener(*handlers)
        return self._opener.open(request, timeout=TIMEOUT)


def _refusal(exc: urllib.error.HTTPError, path: str) -> NotFound | UpstreamError:
    if exc.code != _NOT_FOUND:
        return UpstreamError(f"the mirror answered {exc.code} for {path}")
    try:
        body: Mapping[str, Any] = json.loads(exc.read(_MAX_REASON))
        said = str(body["reason"])
    except (OSError, ValueError, TypeError, KeyError):
        said = ""
    return NotFound(said or f"the mirror has nothing at {path}")


def _token(config: PodConfig) -> str | None:
    if config.token is not None:
        return config.token
    if config.token_path is None:
        return None
    try:
        return config.token_path.read_text(encoding="utf-8").strip() or None
    except (OSError, ValueError):
        return None


def _first_hop(endpoint: str) -> tuple[str, int]:
    """Return whom a request to the endpoint connects to: the host itself or a proxy."""
    parts = urlsplit(endpoint)
    host = parts.hostname or ""
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(host):
        hop = urlsplit(proxy if "//" in proxy else f"//{proxy}")
        return hop.hostname or "", hop.port or 8080
    return host, parts.port or (443 if parts.scheme == "https" else 80)
