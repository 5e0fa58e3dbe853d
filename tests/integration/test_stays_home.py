"""A client behind a mirror asks nobody but the mirror: no telemetry, no data plane, no Hub."""

from __future__ import annotations

import socketserver
import threading
from typing import TYPE_CHECKING

import pytest

from tests.clients import run_ungated
from tests.mirrorkit import make_mirror, publish_model, served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROGRAM = """
import json, time
import kernels
from huggingface_hub import snapshot_download
answer = kernels.get_kernel("acme/relu", version=1).ANSWER
snapshot_download("acme/model")
refused = kernels.has_kernel("acme/unknown", version=1)
time.sleep(2)  # telemetry goes out in the background
print(json.dumps([answer, refused]))
"""


class _Listener(socketserver.StreamRequestHandler):
    seen: list[bytes]

    def handle(self) -> None:
        type(self).seen.append(self.rfile.readline(1000))


@pytest.fixture
def proxy() -> Iterator[tuple[str, list[bytes]]]:
    """A proxy that only notes whom it is asked for."""
    seen: list[bytes] = []
    handler = type("Listener", (_Listener,), {"seen": seen})
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", seen
        server.shutdown()


def test_nothing_leaves_but_to_the_mirror(tmp_path: Path, proxy: tuple[str, list[bytes]]) -> None:
    address, seen = proxy
    kit = make_mirror(tmp_path / "mirror")
    kit.publish()
    publish_model(kit, {"config.json": b"{}", "model.safetensors": b"weights" * 1000})
    everything = {"HTTP_PROXY": address, "HTTPS_PROXY": address, "ALL_PROXY": address}
    home = tmp_path / "home"
    home.mkdir()
    with served(kit.settings) as endpoint:
        assert run_ungated(PROGRAM, home, endpoint=endpoint, **everything) == [42, False]
    assert seen == []


def test_the_proxy_would_have_seen_it(tmp_path: Path, proxy: tuple[str, list[bytes]]) -> None:
    address, seen = proxy
    program = """
import json
from huggingface_hub import snapshot_download
try:
    snapshot_download("acme/model")
except Exception:
    print(json.dumps("failed"))
"""
    assert (
        run_ungated(program, tmp_path, endpoint="http://hub.invalid", HTTP_PROXY=address)
        == "failed"
    )
    assert any(b"hub.invalid" in line for line in seen)
