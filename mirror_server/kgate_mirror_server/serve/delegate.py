"""Model repositories from another host, through this one: a process has one HF_ENDPOINT only.

Answers are streamed from the configured Hub or Artifactory under our own origin; nothing is
stored. A kernel never comes this way: neither a name that the catalog knows as a kernel nor a
repository with kernel builds in it. Credentials go to the delegate's host and to no other.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urljoin, urlsplit

import httpx2
import structlog

from kgate_core.errors import InvalidInput, UpstreamError
from kgate_mirror_server.serve import modelrules
from kgate_mirror_server.serve.lookup import parse_ref
from kgate_mirror_server.serve.target import no_repo
from kgate_mirror_server.serve.wire import Answer, error, json_answer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kgate_mirror_server.serve.settings import DelegateSettings
    from kgate_mirror_server.serve.wire import Header, Request, Send

MAX_JSON: Final = 32 * 1024 * 1024  # bytes of one API answer
MAX_FORM: Final = 1024 * 1024  # bytes of a paths-info form that is passed on
MAX_REDIRECTS: Final = 5
KERNEL_MEMORY: Final = 60.0  # seconds that "this is no kernel" is believed
MAX_REMEMBERED: Final = 4096  # repositories
_TIMEOUT: Final = httpx2.Timeout(30.0, connect=10.0)
_PASSED_ON: Final = ("range", "if-range", "if-none-match", "user-agent", "content-type")
_PASSED_BACK: Final = (
    "content-type", "content-length", "content-range", "accept-ranges", "etag", "last-modified",
    "x-repo-commit", "x-linked-etag", "x-linked-size", "x-error-code", "x-error-message",
)  # fmt: skip
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_OK: Final = 200
_MISSING: Final = 404
_log: Final = structlog.get_logger(__name__)


class ModelDelegate:
    """Streams model repositories of one host."""

    def __init__(self, settings: DelegateSettings) -> None:
        self._settings = settings
        self._client = httpx2.AsyncClient(
            follow_redirects=False, timeout=_TIMEOUT, trust_env=False, headers={"accept": "*/*"}
        )
        self._no_kernel: dict[tuple[str, str], float] = {}

    async def answer(
        self, request: Request, parts: Sequence[str], lane: str, send: Send
    ) -> Answer | None:
        """Answer a request for a model repository that is not published here; None if sent.

        Raises UpstreamError if the delegate does not answer.
        """
        match parts:
            case ["api", "models", org, name, *rest]:
                revision, path = _api_target(rest)
            case [org, name, "resolve", revision, *segments]:
                path = "/".join(segments)
            case _:
                return error(404, "there is nothing at this address")
        repo = f"{org}/{name}"
        if parse_ref(org, name) is None or _climbs(parts):
            return no_repo(repo)
        if modelrules.in_build(path) or await self._is_kernel(request, repo, revision):
            # T58: what holds kernel builds is a kernel, whatever it is asked as.
            return no_repo(repo)
        if parts[0] == "api":
            return await self._document(request, parts)
        return await self._file(request, parts, repo, path, lane, send)

    async def _is_kernel(self, request: Request, repo: str, revision: str) -> bool:
        now = time.monotonic()
        if self._no_kernel.get((repo, revision), 0.0) > now:
            return False
        place = ["api", "models", *repo.split("/"), "tree", revision, "build"]
        response = await self._send(request, "GET", self._url(place, ""))
        try:
            if response.status_code == _OK:
                entries = _loads(await _read(response))
                if modelrules.is_kernel_build(entries if isinstance(entries, list) else []):
                    _log.warning("model.is-kernel", repo=repo, revision=revision)
                    return True
            elif response.status_code not in {401, 403, _MISSING}:
                raise UpstreamError(f"the model host answered {response.status_code}")
        finally:
            await response.aclose()
        if len(self._no_kernel) >= MAX_REMEMBERED:
            self._no_kernel.clear()
        self._no_kernel[repo, revision] = now + KERNEL_MEMORY
        return False

    async def _document(self, request: Request, parts: Sequence[str]) -> Answer:
        body = await request.body(MAX_FORM) if request.method == "POST" else b""
        url = self._url(parts, request.scope["query_string"].decode("latin-1"))
        response = await self._send(request, request.method, url, body)
        try:
            data = b"" if request.head else await _read(response)
        finally:
            await response.aclose()
        if response.status_code != _OK:
            return Answer(response.status_code, data, _back(response, without_length=True))
        # No header of theirs: `xet-auth` links and the like would lead clients elsewhere.
        headers: tuple[Header, ...] = ()
        if link := _next_page(response, self._settings.url, request):
            headers = ((b"link", link),)
        return json_answer(modelrules.without_xet(_loads(data)) if data else {}, *headers)

    async def _file(
        self,
        request: Request,
        parts: Sequence[str],
        repo: str,
        path: str,
        lane: str,
        send: Send,
    ) -> Answer | None:
        strict = modelrules.is_strict(self._settings, lane, repo)
        if risk := modelrules.risk_of(path):
            if strict:
                return error(403, f"{path[:200]} {risk}; lane {lane} serves no such model files")
            _log.warning("model.code-served", repo=repo, path=path, lane=lane)
        looked_into = strict and path.rpartition("/")[2] in modelrules.CONFIGS
        response = await self._send(request, request.method, self._url(parts, ""))
        try:
            if looked_into and not request.head and response.status_code in {200, 206}:
                return await self._config(response, path, lane)
            headers = _back(response)
            status = _OK if response.status_code in _REDIRECTS else response.status_code
            await send({"type": "http.response.start", "status": status, "headers": list(headers)})
            if not request.head:
                async for chunk in response.aiter_raw():
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        except httpx2.HTTPError as exc:
            raise UpstreamError("the model host broke off") from exc
        finally:
            await response.aclose()
        return None

    async def _config(self, response: httpx2.Response, path: str, lane: str) -> Answer:
        data = await _read(response, modelrules.MAX_CONFIG)
        if response.status_code != _OK or modelrules.names_code(data):
            return error(403, f"{path} names code to import; lane {lane} serves no such models")
        return Answer(_OK, data, _back(response, without_length=True))

    def _url(self, parts: Sequence[str], query: str) -> str:
        path = "/".join(quote(part, safe="") for part in parts)
        return f"{self._settings.url}/{path}" + (f"?{query}" if query else "")

    async def _send(
        self, request: Request, method: str, url: str, body: bytes = b""
    ) -> httpx2.Response:
        """Ask the delegate, following redirects; a HEAD stops where another host begins."""
        home = _origin(self._settings.url)
        for _ in range(MAX_REDIRECTS + 1):
            headers = {"accept-encoding": "identity"}
            if method == request.method:
                headers |= {
                    name: value
                    for name in _PASSED_ON
                    if (value := request.header(name.encode("ascii"))) is not None
                }
            if _origin(url) == home:
                headers |= self._credentials(request)
            built = self._client.build_request(method, url, headers=headers, content=body)
            try:
                response = await self._client.send(built, stream=True)
            except (httpx2.HTTPError, httpx2.InvalidURL) as exc:
                raise UpstreamError("the model host does not answer") from exc
            target = response.headers.get("location")
            if response.status_code not in _REDIRECTS or target is None:
                return response
            following = urljoin(url, target)
            if method == "HEAD" and _origin(following) != home:
                return response
            await response.aclose()
            if urlsplit(following).scheme not in {"http", "https"}:
                break
            url = following
        raise UpstreamError("the model host redirects without end")

    def _credentials(self, request: Request) -> dict[str, str]:
        if self._settings.token_file is not None:
            try:
                token = self._settings.token_file.read_text(encoding="ascii").strip()
            except (OSError, ValueError) as exc:
                raise UpstreamError("the token for the model host cannot be read") from exc
            return {"authorization": f"Bearer {token}"}
        # A client's own token is passed on only where it cannot be one of this mirror's.
        if self._settings.forward_credentials and (own := request.header(b"authorization")):
            return {"authorization": own}
        return {}


def _climbs(parts: Sequence[str]) -> bool:
    """Return whether an address would mean another one on the delegate's side."""
    return any(step in {"", ".", ".."} for part in parts for step in part.split("/"))


def _api_target(rest: Sequence[str]) -> tuple[str, str]:
    match rest:
        case ["tree", revision, *path]:
            return revision, "/".join(path)
        case ["revision" | "commits" | "paths-info", revision]:
            return revision, ""
        case [] | ["refs"]:
            return "main", ""
        case _:
            raise InvalidInput("not an address of a model repository")


def _back(response: httpx2.Response, *, without_length: bool = False) -> tuple[Header, ...]:
    headers = {name: response.headers[name] for name in _PASSED_BACK if name in response.headers}
    if response.status_code in _REDIRECTS:
        # What another host would say about the file, told by the one that knows it.
        headers["etag"] = headers.get("x-linked-etag", headers.get("etag", ""))
        headers["content-length"] = headers.get("x-linked-size", "0")
    if without_length:
        headers.pop("content-length", None)
    return tuple(
        (name.encode("ascii"), value.encode("latin-1", "replace"))
        for name, value in headers.items()
    )


async def _read(response: httpx2.Response, limit: int = MAX_JSON) -> bytes:
    data = bytearray()
    try:
        async for chunk in response.aiter_raw():
            data += chunk
            if len(data) > limit:
                raise UpstreamError("the model host sent more than a document")
    except httpx2.HTTPError as exc:
        raise UpstreamError("the model host broke off") from exc
    return bytes(data)


def _loads(data: bytes) -> Any:  # noqa: ANN401  # JSON has no static shape
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise UpstreamError("the model host did not send JSON") from exc


def _next_page(response: httpx2.Response, delegate: str, request: Request) -> bytes | None:
    link = response.links.get("next", {}).get("url", "")
    if not link.startswith(delegate + "/"):
        return None
    base = f"{request.scope.get('scheme', 'http')}://{request.header(b'host') or ''}"
    return f'<{base}{link.removeprefix(delegate)}>; rel="next"'.encode("ascii", "replace")


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port
