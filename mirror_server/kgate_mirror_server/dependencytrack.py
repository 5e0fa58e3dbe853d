"""Sends SBOMs to Dependency-Track: `POST /api/v1/bom`, then `GET /api/v1/event/token/{token}`.

It creates the project if there is none of that name and version. It reads nothing back but whether
the document was processed: what the server thinks of it is seen there.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any, Final

import httpx2

from kgate_core.errors import InvalidInput, TrustError, UpstreamError

if TYPE_CHECKING:
    from pathlib import Path

_TIMEOUT: Final = 30.0  # seconds without a byte
_POLL: Final = 0.5  # seconds between two questions
_TOKEN: Final = re.compile(r"[0-9A-Za-z-]{1,64}")


class DependencyTrack:
    """One API server; raises InvalidInput for an address that is none."""

    def __init__(self, url: str, key_file: Path | None) -> None:
        if not url.startswith(("http://", "https://")):
            raise InvalidInput(f"not the address of an API server: {url!r}", hint="https://…")
        self._url = url.rstrip("/").removesuffix("/api/v1").removesuffix("/api")
        key = "" if key_file is None else key_file.read_text(encoding="utf-8").strip()
        headers = {"User-Agent": "kgate", "Accept": "application/json"}
        if key:
            headers["X-Api-Key"] = key
        # No redirects: the key goes to the host that was named and to no other.
        self._client = httpx2.Client(headers=headers, timeout=_TIMEOUT)

    def upload(self, sbom: bytes, project: str, version: str) -> str:
        """Send a document; return the token of its processing. Raises UpstreamError, TrustError."""
        fields = {"projectName": project, "projectVersion": version, "autoCreate": "true"}
        files = {"bom": ("bom.cdx.json", sbom, "application/json")}
        try:
            answer = self._client.post(f"{self._url}/api/v1/bom", data=fields, files=files)
        except httpx2.HTTPError as exc:
            raise self._unreachable(exc) from exc
        token = self._document(answer).get("token")
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise UpstreamError(f"{self._url} took the SBOM but gave no token for it")
        return token

    def wait(self, token: str, seconds: float) -> bool:
        """Return whether the document was processed within that time; raises UpstreamError."""
        end = time.monotonic() + seconds
        while True:
            try:
                answer = self._client.get(f"{self._url}/api/v1/event/token/{token}")
            except httpx2.HTTPError as exc:
                raise self._unreachable(exc) from exc
            if self._document(answer).get("processing") is False:
                return True
            if time.monotonic() >= end:
                return False
            time.sleep(_POLL)

    def _document(self, answer: httpx2.Response) -> dict[str, Any]:
        match answer.status_code:
            case 401 | 403:
                raise TrustError(
                    f"{self._url} does not accept the API key (HTTP {answer.status_code})",
                    hint="its team needs BOM_UPLOAD, and PROJECT_CREATION_UPLOAD for new projects",
                )
            case 404:
                raise UpstreamError(
                    f"{self._url} has no such project, or is no API server (HTTP 404)",
                    hint="--dtrack names the API server; may the key's team create projects?",
                )
            case status if not answer.is_success:
                raise UpstreamError(
                    f"{self._url} refused the SBOM: HTTP {status}: {answer.text[:200]}"
                )
        try:
            document = answer.json()
        except ValueError as exc:
            raise UpstreamError(
                f"{self._url} does not answer like Dependency-Track",
                hint="--dtrack names the API server, not the frontend",
            ) from exc
        return document if isinstance(document, dict) else {}

    def _unreachable(self, exc: httpx2.HTTPError) -> UpstreamError:
        return UpstreamError(
            f"{self._url} could not be reached: {type(exc).__name__}",
            hint="check the address and the proxy; SSL_CERT_FILE names a private CA",
        )
