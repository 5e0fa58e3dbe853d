"""nginx from Debian: as the limit (plain files), and before a mirror with the shipped settings."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

from tests.mirrorkit import free_port
from tests.services import find_program

if TYPE_CHECKING:
    from collections.abc import Iterator

CONFIG = Path(__file__).parents[2] / "deploy" / "nginx" / "kgate.conf"
MAIN = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
worker_processes {workers};
events {{ worker_connections 4096; }}
http {{
    access_log off;
    default_type application/octet-stream;
    sendfile on; tcp_nopush on; keepalive_requests 1000000;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
{server}
}}
"""
STATIC = """
    open_file_cache max=10000 inactive=60s;
    server {{ listen 127.0.0.1:{port}; root {root}; }}
"""


@contextlib.contextmanager
def static(root: Path, workers: int) -> Iterator[int]:
    """Serve a folder's files; yields the port."""
    port = free_port()
    with _nginx(STATIC.format(port=port, root=root), port, workers):
        yield port


@contextlib.contextmanager
def in_front(mirror_port: int, blobs: Path, workers: int) -> Iterator[int]:
    """Run the shipped configuration before a mirror; yields the port."""
    port = free_port()
    text = CONFIG.read_text(encoding="utf-8")
    for old, new in (
        ("127.0.0.1:8800", f"127.0.0.1:{mirror_port}"),
        ("listen 8080", f"listen 127.0.0.1:{port}"),
        ("/var/lib/kgate/blobs/sha256/", f"{blobs}/"),
        # All clients of a measurement are one address.
        ("rate=500r/s", "rate=1000000r/s"),
        ("kgate_connections 256", "kgate_connections 10000"),
    ):
        assert old in text, old
        text = text.replace(old, new)
    with _nginx(text, port, workers):
        yield port


@contextlib.contextmanager
def _nginx(server: str, port: int, workers: int) -> Iterator[None]:
    program = find_program("nginx", "nginx-light", "/usr/sbin/nginx")
    with tempfile.TemporaryDirectory(prefix="kgate-nginx-") as name:
        folder = Path(name)
        text = MAIN.format(folder=folder, workers=workers, server=server)
        if os.geteuid() == 0:
            text = "user root;\n" + text
        (folder / "nginx.conf").write_text(text, encoding="utf-8")
        with (folder / "said").open("wb") as said:
            process = subprocess.Popen(
                [program, "-p", name, "-c", str(folder / "nginx.conf")], stderr=said
            )
        try:
            _wait(port, process, folder / "said")
            yield
        finally:
            process.terminate()
            process.wait(10)


def _wait(port: int, process: subprocess.Popen[bytes], said: Path) -> None:
    for _ in range(200):
        if process.poll() is not None:
            raise AssertionError(said.read_text(errors="replace") or "nginx ended at once")
        with contextlib.suppress(urllib.error.HTTPError):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=1).close()
            except urllib.error.HTTPError:
                return
            except OSError:
                time.sleep(0.05)
            else:
                return
    raise AssertionError("nginx did not answer")
