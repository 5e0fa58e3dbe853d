"""HTTP requests to one upstream: its proxy, certificates and token, retries, errors translated.

What may pass by itself is tried again, as late as the upstream asks for. The token goes to the
upstream's own host only: a redirect elsewhere is followed without it. Bodies are not checked here.
"""

from __future__ import annotations

import ssl
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urljoin, urlsplit

import httpx2
import stamina

from kgate_core.errors import KgateError, NotFound, TrustError, UpstreamError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

T = TypeVar("T")
ATTEMPTS: Final = 5
MAX_WAIT: Final = 120.0  # seconds; an upstream that asks for more patience is an error
_CONNECT: Final = 10.0  # seconds until a connection must stand
_MAX_DOCUMENT: Final = 64 * 1024**2  # bytes of one JSON answer
_MAX_REDIRECTS: Final = 5
_MAX_TOKEN: Final = 64 * 1024  # bytes
_RETRY_STATUS: Final = frozenset({408, 429, 500, 502, 503, 504})
_UNAUTHORISED: Final = frozenset({401, 403})
_ERRORS_FROM: Final = 400


class Retryable(UpstreamError):  # noqa: N818  # the family bears no "Error" suffix
    """The request may succeed if it is made again, after `wait` seconds if that is known."""

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


@dataclass(frozen=True, slots=True)
class Access:
    """How an upstream is reached."""

    token: str = ""
    ca_file: Path | None = None
    proxy: str | None = None
    no_proxy: tuple[str, ...] = ()
    timeout: float = 30.0
    """Seconds without a byte."""


class Requests:
    """A session with one upstream; safe to use from several threads."""

    def __init__(self, url: str, access: Access, agent: str) -> None:
        self.url = url
        self._token = access.token
        try:
            verify = (
                ssl.create_default_context(cafile=str(access.ca_file)) if access.ca_file else True
            )
        except OSError as exc:
            raise TrustError(
                f"the certificates in {access.ca_file} cannot be used ({exc.strerror or exc})",
                hint="ca_file names a PEM file with the private CA's certificates",
            ) from exc
        mounts: dict[str, httpx2.BaseTransport | None] = {
            pattern: httpx2.HTTPTransport(verify=verify)
            for host in access.no_proxy
            for pattern in _patterns(host)
        }
        patience = httpx2.Timeout(access.timeout, connect=min(_CONNECT, access.timeout))
        self._client = httpx2.Client(
            verify=verify,
            proxy=access.proxy,
            mounts=mounts or None,
            timeout=patience,
            headers={"User-Agent": agent, "Accept-Encoding": "identity"},
            follow_redirects=True,
            max_redirects=_MAX_REDIRECTS,
            auth=_no_auth,  # a netrc file must not put its own credentials in
        )

    def pages(self, path: str, what: str) -> Iterator[Any]:
        """Yield the JSON of each page of an answer; raises NotFound, UpstreamError."""
        following: str | None = f"{self.url}{path}"
        while following is not None:
            address = following
            document, link = self.retried(what, lambda: self._page(address, what))  # noqa: B023  # called before the next turn
            yield document
            following = link and urljoin(address, link)
            if following and urlsplit(following)[:2] != urlsplit(self.url)[:2]:
                raise UpstreamError(f"{what}: the next page is said to lie on another host")

    def _page(self, address: str, what: str) -> tuple[Any, str | None]:
        body = bytearray()
        with self.opened(address, what) as response:
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > _MAX_DOCUMENT:
                    raise UpstreamError(f"{what}: the answer has more than {_MAX_DOCUMENT} bytes")
            link = response.links.get("next", {}).get("url")
            kind = response.headers.get("content-type", "")
        try:
            return httpx2.Response(200, content=bytes(body)).json(), link
        except ValueError as exc:
            raise UpstreamError(
                f"{what}: {self.url} does not answer like a Hub (no JSON, but {kind or 'nothing'})",
                hint="check upstream.url, and whether a proxy or login page answers in its place",
            ) from exc

    def body(self, path: str, what: str, limit: int) -> bytes:
        """Return an answer of up to `limit` bytes as it came; raises NotFound, UpstreamError."""

        def read() -> bytes:
            body = bytearray()
            with self.opened(f"{self.url}{path}", what) as response:
                for chunk in response.iter_bytes():
                    body += chunk
                    if len(body) > limit:
                        raise UpstreamError(f"{what}: the answer has more than {limit} bytes")
            return bytes(body)

        return self.retried(what, read)

    def retried(self, what: str, call: Callable[[], T]) -> T:
        """Return what `call` does, made again while it is Retryable; raises UpstreamError."""
        try:
            for attempt in retries():
                with attempt:
                    return call()
        except Retryable as exc:
            raise UpstreamError(
                f"{what}: {self.url} did not answer in {ATTEMPTS} attempts: {exc}",
                hint=f"check that {urlsplit(self.url).hostname} is reachable from here",
            ) from exc
        raise AssertionError("the retry loop always returns or raises")

    @contextmanager
    def opened(
        self, address: str, what: str, headers: dict[str, str] | None = None
    ) -> Iterator[httpx2.Response]:
        """Open an answer whose status is good; raises Retryable, NotFound, UpstreamError."""
        asked = dict(headers or {})
        if self._token:
            asked["Authorization"] = f"Bearer {self._token}"
        try:
            with self._client.stream("GET", address, headers=asked) as response:
                self._check(response, what)
                yield response
        except (httpx2.TransportError, httpx2.StreamError) as exc:
            raise Retryable(_say(exc)) from exc
        except (httpx2.TooManyRedirects, httpx2.InvalidURL) as exc:
            raise UpstreamError(f"{what}: {self.url} redirects in circles") from exc
        except httpx2.DecodingError as exc:
            raise UpstreamError(f"{what}: {self.url} sends a compressed body") from exc

    def _check(self, response: httpx2.Response, what: str) -> None:
        status = response.status_code
        if status < _ERRORS_FROM:
            return
        if status in _RETRY_STATUS:
            raise self._later(response, what)
        hint = "a private or gated repository needs the token of upstream.token_file"
        match response.headers.get("x-error-code", ""):
            case "GatedRepo":
                raise UpstreamError(
                    f"{what}: the repository is gated",
                    hint="ask for access there and name the token's file: upstream.token_file",
                )
            case "RevisionNotFound":
                raise NotFound(f"{what}: {self.url} has no such revision")
            case "EntryNotFound":
                raise NotFound(f"{what}: {self.url} has no such file")
            case "RepoNotFound":
                raise self._no_repository(what)
            case _ if status == httpx2.codes.NOT_FOUND:
                raise self._no_repository(what)
            case _ if status in _UNAUTHORISED:
                raise UpstreamError(f"{what}: {self.url} says HTTP {status}", hint=hint)
            case _:
                raise UpstreamError(f"{what}: HTTP {status} by {self.url}")

    def _no_repository(self, what: str) -> KgateError:
        return NotFound(
            f"{what}: {self.url} has no such kernel repository",
            hint="check the spelling; a private repository needs upstream.token_file",
        )

    def _later(self, response: httpx2.Response, what: str) -> Exception:
        wait = _retry_after(response.headers.get("retry-after", ""))
        said = f"HTTP {response.status_code}"
        if wait is not None and wait > MAX_WAIT:
            return UpstreamError(
                f"{what}: {self.url} says {said} and to come back in {wait:.0f} s",
                hint="run the same command again then: what was stored stays stored",
            )
        return Retryable(said, wait)


def retries() -> Iterable[stamina.Attempt]:
    """Return attempts with growing pauses, or those that the upstream asked for."""
    return stamina.retry_context(
        on=_pause, attempts=ATTEMPTS, timeout=None, wait_initial=0.2, wait_max=8.0
    )


def _pause(error: Exception) -> bool | float:
    if not isinstance(error, Retryable):
        return False
    return True if error.wait is None else error.wait


def _retry_after(text: str) -> float | None:
    """Read a Retry-After header in seconds from now (RFC 9110 §10.2.3); None if it has none."""
    if text.strip().isdecimal():
        return float(text)
    try:
        until = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (until.astimezone(UTC) - datetime.now(UTC)).total_seconds())


def _no_auth(request: httpx2.Request) -> httpx2.Request:
    return request


def _patterns(host: str) -> tuple[str, ...]:
    if host.startswith("."):
        return (f"all://*{host}", f"all://{host[1:]}")
    return (f"all://{host}",)


def _say(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def clean_token(data: bytes, what: str) -> str:
    """Return a token as it goes into a header; raises TrustError without showing it."""
    token = data.strip()
    if len(token) > _MAX_TOKEN or not token.isascii() or not token.decode("ascii").isprintable():
        raise TrustError(f"{what} does not hold a token in one line")
    return token.decode("ascii")
