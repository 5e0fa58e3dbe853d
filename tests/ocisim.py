"""A small OCI registry in memory that can lie, stumble and demand tokens; for tests only.

Distribution specification 1.1 with the referrers API, which Debian's registry lacks. `Faults` says
what goes wrong; every request is remembered with its headers.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

INDEX = "application/vnd.oci.image.index.v1+json"


@dataclass
class Faults:
    """What goes wrong."""

    referrers: bool = True
    """False: there is no referrers API, as in registries before 1.1."""
    token: str = ""
    """If set, every request needs this bearer token, to be had for user `kgate` with `secret`."""
    cut_download_after: int = 0
    """Bytes after which the next download of a blob is cut; then reset."""
    cut_upload_after: int = 0
    """Bytes after which the next chunk of an upload is cut; then reset."""
    ignore_ranges: bool = False
    spoil_blobs: bool = False
    """Send every blob with its last byte changed."""
    spoil_manifests: bool = False
    wrong_header: bool = False
    """State another digest than the manifest's in Docker-Content-Digest."""
    redirect_to: str = ""
    """Address to which downloads of blobs are redirected."""
    unavailable: int = 0
    """How many requests get a 503 first."""
    endless: bool = False
    """Blobs never end."""


@dataclass
class Simulator:
    """State of the registry."""

    faults: Faults = field(default_factory=Faults)
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[tuple[str, str], tuple[str, bytes]] = field(default_factory=dict)
    uploads: dict[str, bytearray] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    address: str = ""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    simulator: Simulator

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base's name
        """Say nothing."""

    def _answer(self, status: int, data: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _allowed(self) -> bool:
        faults = self.simulator.faults
        self.simulator.requests.append((self.command, self.path, dict(self.headers)))
        if faults.unavailable:
            faults.unavailable -= 1
            self._drain()
            self._answer(503)
            return False
        if faults.token and self.headers.get("Authorization") != f"Bearer {faults.token}":
            self._drain()
            realm = f"http://{self.simulator.address}/token"
            challenge = f'Bearer realm="{realm}",service="sim",scope="repository:x:pull,push"'
            self._answer(401, WWW_Authenticate=challenge)
            return False
        return True

    def _drain(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path == "/token":
            wanted = "Basic " + base64.b64encode(b"kgate:secret").decode()
            good = self.headers.get("Authorization") == wanted
            data = json.dumps({"token": self.simulator.faults.token}).encode() if good else b"{}"
            self._answer(200 if good else 401, data)
            return
        if not self._allowed():
            return
        if found := re.fullmatch(r"/v2/(.+)/blobs/(sha256:\w+)", path):
            self._blob(found[2])
        elif found := re.fullmatch(r"/v2/(.+)/manifests/(.+)", path):
            self._manifest(found[1], found[2])
        elif found := re.fullmatch(r"/v2/(.+)/blobs/uploads/(\w+)", path):
            count = len(self.simulator.uploads[found[2]])
            self._answer(204, Range=f"0-{max(count - 1, 0)}")
        elif found := re.fullmatch(r"/v2/(.+)/tags/list", path):
            self._tags(found[1])
        elif found := re.fullmatch(r"/v2/(.+)/referrers/(.+)", path):
            self._referrers(found[1], found[2])
        elif path == "/v2/_catalog":
            names = sorted({name for name, _ in self.simulator.manifests})
            self._answer(200, json.dumps({"repositories": names}).encode())
        else:
            self._answer(404)

    do_HEAD = do_GET  # noqa: N815  # the base's name

    def _blob(self, digest: str) -> None:
        faults = self.simulator.faults
        data = self.simulator.blobs.get(digest)
        if data is None:
            self._answer(404)
            return
        if faults.redirect_to and self.command == "GET":
            self._answer(307, Location=f"{faults.redirect_to}{self.path}")
            return
        if faults.spoil_blobs:
            data = data[:-1] + bytes([data[-1] ^ 1])
        status = 200
        if (wanted := self.headers.get("Range")) and not faults.ignore_ranges:
            data, status = data[int(wanted.removeprefix("bytes=").rstrip("-")) :], 206
        if faults.endless and self.command == "GET":
            self._answer(200, Content_Length=str(10**12))
            with contextlib.suppress(OSError):
                while True:
                    self.wfile.write(bytes(65536))
            return
        if faults.cut_download_after and self.command == "GET":
            cut, faults.cut_download_after = faults.cut_download_after, 0
            self._answer(status, data[:cut], Content_Length=str(len(data)))
            self.close_connection = True
            return
        self._answer(status, data)

    def _manifest(self, name: str, reference: str) -> None:
        found = self.simulator.manifests.get((name, reference))
        if found is None:
            self._answer(404)
            return
        kind, data = found
        if self.simulator.faults.spoil_manifests:
            data = data.replace(b'"schemaVersion":2', b'"schemaVersion": 2')
        digest = hashlib.sha256(data).hexdigest()
        stated = "0" * 64 if self.simulator.faults.wrong_header else digest
        self._answer(200, data, Content_Type=kind, Docker_Content_Digest=f"sha256:{stated}")

    def _tags(self, name: str) -> None:
        tags = sorted(
            ref for repo, ref in self.simulator.manifests if repo == name and ":" not in ref
        )
        query = parse_qs(urlsplit(self.path).query)
        last = query.get("last", [""])[0]
        page = [tag for tag in tags if tag > last][:2]  # small pages: the client must follow
        headers = {"Link": f'</v2/{name}/tags/list?last={page[-1]}>; rel="next"'} if page else {}
        self._answer(200, json.dumps({"name": name, "tags": page}).encode(), **headers)

    def _referrers(self, name: str, subject: str) -> None:
        if not self.simulator.faults.referrers:
            self._answer(404)
            return
        found = []
        for (repo, reference), (kind, data) in self.simulator.manifests.items():
            fields = json.loads(data)
            about = fields.get("subject", {}).get("digest")
            if repo == name and reference.startswith("sha256:") and about == subject:
                found.append({"mediaType": kind, "digest": reference, "size": len(data)})
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": found}
        self._answer(200, json.dumps(index).encode(), Content_Type=INDEX)

    def do_POST(self) -> None:
        if self._allowed():
            number = str(len(self.simulator.uploads))
            self.simulator.uploads[number] = bytearray()
            self._answer(202, Location=f"{urlsplit(self.path).path}{number}?state=a")

    def do_PATCH(self) -> None:
        if not self._allowed():
            return
        upload = self.simulator.uploads[urlsplit(self.path).path.rpartition("/")[2]]
        count = int(self.headers["Content-Length"])
        start = int(self.headers["Content-Range"].partition("-")[0])
        if start != len(upload):
            self.rfile.read(count)
            self._answer(416)
            return
        cut, self.simulator.faults.cut_upload_after = self.simulator.faults.cut_upload_after, 0
        upload += self.rfile.read(min(count, cut or count))
        if cut:
            self.close_connection = True
            return
        self._answer(202, Location=self.path)

    def do_PUT(self) -> None:
        if not self._allowed():
            return
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if found := re.fullmatch(r"/v2/(.+)/manifests/(.+)", parts.path):
            digest = "sha256:" + hashlib.sha256(body).hexdigest()
            stored = (self.headers["Content-Type"], body)
            for reference in (found[2], digest):
                self.simulator.manifests[found[1], reference] = stored
            headers = {"Docker_Content_Digest": digest}
            subject = json.loads(body).get("subject")
            if subject and self.simulator.faults.referrers:
                headers["OCI_Subject"] = subject["digest"]
            self._answer(201, b"", **headers)
            return
        data = bytes(self.simulator.uploads[parts.path.rpartition("/")[2]]) + body
        digest = parse_qs(parts.query)["digest"][0]
        if "sha256:" + hashlib.sha256(data).hexdigest() != digest:
            message = {"errors": [{"code": "DIGEST_INVALID", "message": "wrong digest"}]}
            self._answer(400, json.dumps(message).encode())
            return
        self.simulator.blobs[digest] = data
        self._answer(201)


@contextlib.contextmanager
def simulated(faults: Faults | None = None) -> Iterator[Simulator]:
    """Run a simulator on an ephemeral port."""
    simulator = Simulator(faults or Faults())
    handler = type("Handler", (_Handler,), {"simulator": simulator})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    simulator.address = f"127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield simulator
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
