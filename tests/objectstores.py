"""A live S3-speaking server on this machine, and a store in one of its buckets."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kgate_mirror_server.store.opening import ObjectPlace
from kgate_mirror_server.store.remote import Place
from tests.mirrorkit import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kgate_core.digest import Digest
    from kgate_mirror_server.catalog.claims import Claims
    from kgate_mirror_server.store.objects import ObjectStore

_START_SECONDS = 30
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "kgate", "AWS_SECRET_ACCESS_KEY": "kgate"}


@dataclass
class S3:
    """A server with one bucket; `stop` and `start` take it away and bring it back, empty."""

    port: int
    log: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)],
                stdout=log,
                stderr=log,
            )
        until = time.monotonic() + _START_SECONDS
        while not self._answers():
            assert time.monotonic() < until, self.log.read_text()
            time.sleep(0.1)
        self.request("PUT", "/kernels")

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def request(self, method: str, path: str, data: bytes | None = None) -> bytes:
        """Ask the server directly, as somebody who bypasses the mirror does."""
        kind = {"Content-Type": "application/octet-stream"}
        request = urllib.request.Request(f"{self.endpoint}{path}", data, kind, method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            found: bytes = answer.read()
        return found

    def overwrite(self, digest: Digest, data: bytes, prefix: str = "site") -> None:
        """Change a blob's object behind the mirror's back."""
        place = f"/kernels/{prefix}/blobs/sha256/{digest.hex[:2]}/{digest.hex}"
        self.request("PUT", place, data)

    def place(self, cache: Path, *, limit: int = 10**9, stream: bool = False) -> ObjectPlace:
        return ObjectPlace(
            Place("s3://kernels/site", self.endpoint, "us-east-1", CREDENTIALS),
            cache,
            limit,
            stream,
        )

    def store(self, cache: Path, claims: Claims | None = None, limit: int = 10**9) -> ObjectStore:
        return self.place(cache, limit=limit).open(claims)

    def settings(self, folder: Path, *, stream: bool = False) -> str:
        """Return the lines of kgate.yaml that name this store; writes the credentials' file."""
        named = folder / "s3.env"
        named.write_text("\n".join(f"{k}={v}" for k, v in CREDENTIALS.items()), encoding="utf-8")
        return (
            "store: s3://kernels/site\n"
            f"object_store: {{endpoint: '{self.endpoint}', region: us-east-1,"
            f" credentials: s3.env, stream: {str(stream).lower()}}}\n"
        )

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(f"{self.endpoint}/moto-api/", timeout=1).close()
        except (urllib.error.URLError, OSError):
            return False
        return True


@contextlib.contextmanager
def s3_server(folder: Path) -> Iterator[S3]:
    """Run the server until the test is over."""
    server = S3(free_port(), folder / "s3.log")
    server.start()
    try:
        yield server
    finally:
        server.stop()
