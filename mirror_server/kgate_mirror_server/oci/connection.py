"""Requests to an OCI registry: credentials, retries, pages, and errors in kgate's own family.

A challenge is answered once, what may pass by itself is tried again, credentials go to the
registry's own host only. What is asked for is the business of `registry`.
"""

from __future__ import annotations

from collections.abc import Iterator  # noqa: TC003  # contextmanager wants it at run time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urljoin, urlsplit

import requests
import stamina

from kgate_core import strictjson
from kgate_core.errors import NotFound, UpstreamError
from kgate_mirror_server.oci.credentials import Access, Login

if TYPE_CHECKING:
    from kgate_mirror_server.oci.credentials import Place

MAX_PAGES: Final = 1_000
TIMEOUT: Final = 60.0  # seconds without a byte
ATTEMPTS: Final = 4
_ERRORS_FROM: Final = 400
_RETRY_STATUS: Final = frozenset({429, 500, 502, 503, 504})
_UNAUTHORISED: Final = frozenset({401, 403})


class Retryable(UpstreamError):  # noqa: N818  # the family bears no "Error" suffix
    """The request may succeed if it is made again."""


class Connection:
    """A registry with one set of credentials; knows requests, not what they are about."""

    def __init__(self, place: Place, access: Access | None = None) -> None:
        self.place = place
        access = access or Access()
        self._base = f"{access.scheme(place.host)}://{place.host}"
        self._session = requests.Session()
        # Given with each request: the environment's certificates would override the session's.
        self._verify = str(access.ca_file) if access.ca_file else None
        # A netrc file would put its own credentials over ours.
        self._session.auth = lambda request: request
        self._login = Login(place, access, self._session)

    def pages(self, path: str, key: str) -> Iterator[str]:
        """Yield the strings of a paged list."""
        for _ in range(MAX_PAGES):
            response = self.ask("GET", path)
            data = strictjson.loads(response.content, what=path)
            for item in data.get(key) or ():
                yield str(item)
            following = response.links.get("next", {}).get("url")
            if not following:
                return
            path = str(following)
        raise UpstreamError(f"{self.place}: more than {MAX_PAGES} pages")

    def ask(self, method: str, path: str, **options: Any) -> requests.Response:  # noqa: ANN401  # requests' own
        """Make a request that may be repeated; raises NotFound, UpstreamError."""
        attempts = stamina.retry_context(
            on=Retryable, attempts=ATTEMPTS, timeout=None, wait_initial=0.1, wait_max=5.0
        )
        try:
            for attempt in attempts:
                with attempt:
                    return self.once(method, path, **options)
        except Retryable as exc:
            raise UpstreamError(
                f"{self.place}: no answer in {ATTEMPTS} attempts: {exc}",
                hint="run the same command again: what arrived stays there",
            ) from exc
        raise AssertionError("the retry loop always returns or raises")

    def once(self, method: str, path: str, **options: Any) -> requests.Response:  # noqa: ANN401  # as above
        """Make one request, answering one challenge; raises Retryable, NotFound, UpstreamError."""
        url = urljoin(self._base, path)
        own = urlsplit(url).netloc == urlsplit(self._base).netloc
        headers = options.pop("headers", {})
        make = options.pop("body", None)
        for again in (True, False):
            if make is not None:
                options["data"] = make()
            with translated(self.place):
                response = self._session.request(
                    method,
                    url,
                    headers=headers | (self._login.headers if own else {}),
                    timeout=TIMEOUT,
                    verify=self._verify,
                    **options,
                )
            if not (again and response.status_code in _UNAUTHORISED and own):
                break
            if not self._login.answer(response):
                break
        return self._checked(response, method, path)

    def _checked(self, response: requests.Response, method: str, path: str) -> requests.Response:
        status = response.status_code
        what = f"{self.place}: {method} {urlsplit(path).path}"
        if status in _RETRY_STATUS:
            raise Retryable(f"HTTP {status}")
        if status in _UNAUTHORISED:
            raise UpstreamError(
                f"{what}: HTTP {status}, not allowed",
                hint="log in to the registry (docker login, skopeo login), or name --docker-config",
            )
        if status == requests.codes.not_found:
            raise NotFound(f"{what}: not there")
        if status >= _ERRORS_FROM:
            raise UpstreamError(f"{what}: HTTP {status}: {_reason(response)}")
        return response


@contextmanager
def translated(place: Place) -> Iterator[None]:
    """Turn errors of requests into ours; what may pass by itself becomes Retryable."""
    try:
        yield
    except requests.exceptions.SSLError as exc:
        raise UpstreamError(
            f"{place}: its certificate is not trusted here",
            hint="name the CA with --ca-file, or --plain-http for a registry without TLS",
        ) from exc
    except (requests.exceptions.MissingSchema, requests.exceptions.InvalidURL) as exc:
        raise UpstreamError(f"{place}: the registry names an unusable address") from exc
    except (requests.RequestException, OSError) as exc:
        raise Retryable(type(exc).__name__) from exc


def _reason(response: requests.Response) -> str:
    """Return the registry's own sentence, shortened; it may say anything."""
    try:
        errors = response.json()["errors"]
        return "; ".join(str(error.get("message", "")) for error in errors)[:200]
    except (ValueError, KeyError, TypeError, AttributeError):
        return response.reason or "no reason given"
