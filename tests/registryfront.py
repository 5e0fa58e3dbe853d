"""The referrers API in front of a live registry that lacks it; for tests only.

Debian's registry speaks the distribution API of 2022. This front passes everything on and adds what
version 1.1 demands: `OCI-Subject` when a manifest with a subject is stored, and the list of
referrers with artifact types and annotations, filtered if asked.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.registrykit import LiveRegistry

INDEX = "application/vnd.oci.image.index.v1+json"
HOP = {"connection", "transfer-encoding", "content-length", "host"}


@dataclass
class Front:
    """What the front knows besides the registry."""

    behind: str
    address: str = ""
    referrers: dict[tuple[str, str], dict[str, dict[str, Any]]] = field(default_factory=dict)
    """By repository and subject: descriptors by digest."""

    @property
    def url(self) -> str:
        """As kgate names it."""
        return f"oci://{self.address}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    front: Front

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base's name
        """Say nothing."""

    def do_GET(self) -> None:
        found = re.fullmatch(r"/v2/(.+)/referrers/(sha256:\w+)", urlsplit(self.path).path)
        if found is None or self.command != "GET":
            self._pass_on(b"")
            return
        items = list(self.front.referrers.get((found[1], found[2]), {}).values())
        wanted = parse_qs(urlsplit(self.path).query).get("artifactType")
        headers = {"Content-Type": INDEX}
        if wanted:
            items = [item for item in items if item["artifactType"] == wanted[0]]
            headers["OCI-Filters-Applied"] = "artifactType"
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": items}
        self._answer(200, headers, json.dumps(index).encode())

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        found = re.fullmatch(r"/v2/(.+)/manifests/(.+)", urlsplit(self.path).path)
        self._pass_on(body, found[1] if found else "")

    do_HEAD = do_GET  # noqa: N815  # the base's name
    do_POST = do_PATCH = do_DELETE = do_PUT  # noqa: N815  # the same

    def _pass_on(self, body: bytes, repository: str = "") -> None:
        connection = http.client.HTTPConnection(self.front.behind, timeout=30)
        # With the front's own name as host, so that places for uploads lead back to it.
        headers = {k: v for k, v in self.headers.items() if k.lower() not in HOP}
        connection.request(
            self.command, self.path, body or None, headers | {"Host": self.front.address}
        )
        answer = connection.getresponse()
        data = answer.read()
        kept = {k: v for k, v in answer.getheaders() if k.lower() not in HOP}
        if repository and answer.status == http.client.CREATED:
            kept |= self._remember(repository, body)
        length = answer.headers.get("Content-Length", "0") if self.command == "HEAD" else None
        self._answer(answer.status, kept, data, length)
        connection.close()

    def _remember(self, repository: str, body: bytes) -> dict[str, str]:
        fields = json.loads(body)
        if "subject" not in fields:
            return {}
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        subject = str(fields["subject"]["digest"])
        self.front.referrers.setdefault((repository, subject), {})[digest] = {
            "mediaType": fields["mediaType"],
            "digest": digest,
            "size": len(body),
            "artifactType": fields.get("artifactType") or fields["config"]["mediaType"],
            "annotations": fields.get("annotations", {}),
        }
        return {"OCI-Subject": subject}

    def _answer(
        self, status: int, headers: dict[str, str], data: bytes, length: str | None = None
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", length or str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


@contextlib.contextmanager
def referrers_front(registry: LiveRegistry) -> Iterator[Front]:
    """Run the front on an ephemeral port."""
    front = Front(registry.address)
    handler = type("Handler", (_Handler,), {"front": front})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    front.address = f"127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield front
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
