from __future__ import annotations

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from kgate_client import channel as module
from kgate_client.channel import Channel
from kgate_client.config import PodConfig
from kgate_core.errors import NotFound, UpstreamError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    status = 200
    body = b"{}"
    headers: dict[str, str]
    seen: list[tuple[str, str | None]]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        self.server.seen.append((self.path, self.headers.get("Authorization")))
        redirect = self.server.headers.get("Location")
        followed = redirect is not None and self.path.startswith("/followed")
        self.send_response(200 if followed else self.server.status)
        for name, value in self.server.headers.items():
            if not followed:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base's name
        """Keep the test's output quiet."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    found = _Server(("127.0.0.1", 0), _Handler)
    found.headers, found.seen = {}, []
    thread = threading.Thread(target=found.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield found
    found.shutdown()
    found.server_close()
    thread.join()


class _Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_documents_come_from_the_pods_api_with_the_token(server: _Server) -> None:
    channel = Channel(server.url, lambda: "t0ken")

    assert channel.trust("timestamp.json") == b"{}"
    assert channel.attestations("acme/relu/" + "a" * 40 + "/torch-cpu") == b"{}"
    assert server.seen == [
        ("/api/kgate/v1/trust/timestamp.json", "Bearer t0ken"),
        ("/api/kgate/v1/attestations/acme/relu/" + "a" * 40 + "/torch-cpu", "Bearer t0ken"),
    ]


def test_what_is_not_there_says_why(server: _Server) -> None:
    server.status = 404
    server.body = json.dumps({"error": "denied", "reason": "denied: require-signature"}).encode()

    with pytest.raises(NotFound, match="denied: require-signature"):
        Channel(server.url).trust("timestamp.json")
    server.body = b"<html>"
    with pytest.raises(NotFound, match="has nothing at"):
        Channel(server.url).trust("timestamp.json")


def test_another_answer_is_no_answer(server: _Server) -> None:
    server.status = 503

    with pytest.raises(UpstreamError, match="answered 503"):
        Channel(server.url).trust("timestamp.json")


def test_a_redirect_stays_on_its_host(server: _Server) -> None:
    server.status, server.headers = 302, {"Location": "/followed"}
    assert Channel(server.url, lambda: "t0ken").trust("timestamp.json") == b"{}"

    server.headers = {"Location": f"http://localhost:{server.server_port}/followed"}
    with pytest.raises(UpstreamError, match="answered 302"):
        Channel(server.url, lambda: "t0ken").trust("timestamp.json")
    assert all(path != "/followed" for path, _ in server.seen[-1:])


def test_an_answer_has_a_size_limit(server: _Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_TRUST", 8)
    server.body = b"x" * 9

    with pytest.raises(UpstreamError, match="more than 8 bytes"):
        Channel(server.url).trust("timestamp.json")


def test_a_dead_endpoint_is_asked_once_in_half_a_minute(server: _Server) -> None:
    clock = _Clock()
    channel = Channel(server.url, monotonic=clock)
    assert channel.probe() == ""
    server.server_close()
    server.shutdown()

    assert "no connection to 127.0.0.1" in channel.probe()
    with pytest.raises(UpstreamError, match="no connection"):
        channel.trust("timestamp.json")
    with socket.create_server(("127.0.0.1", server.server_port), reuse_port=True):
        assert channel.probe() != ""
        clock.now += module.REMEMBER_DEAD
        assert channel.probe() == ""


def test_a_server_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUT", 0.2)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        channel = Channel(f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(UpstreamError, match="does not answer"):
            channel.trust("timestamp.json")


def test_only_http_is_spoken() -> None:
    with pytest.raises(UpstreamError, match="not http or https"):
        Channel("file:///etc").trust("passwd")
    with pytest.raises(UpstreamError, match="does not answer"):
        Channel("no url").trust("timestamp.json")


def test_a_private_certificate_authority_is_used_and_checked(tmp_path: Path) -> None:
    missing = Channel("https://127.0.0.1:9", ca_bundle=tmp_path / "ca.pem")

    with pytest.raises(UpstreamError, match="No such file"):
        missing.trust("timestamp.json")


def test_behind_a_proxy_the_proxy_is_whom_one_connects_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy.test:3128")
    monkeypatch.setenv("https_proxy", "proxy.test")
    monkeypatch.setenv("no_proxy", "inside.test")

    assert module._first_hop("http://mirror.test") == ("proxy.test", 3128)
    assert module._first_hop("https://mirror.test") == ("proxy.test", 8080)
    assert module._first_hop("http://inside.test") == ("inside.test", 80)
    assert module._first_hop("https://inside.test:8443") == ("inside.test", 8443)


def test_the_channel_is_what_the_configuration_allows(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("from-file\n")

    assert Channel.of(PodConfig()) is None
    assert Channel.of(PodConfig(endpoint="http://m", offline=True)) is None
    tokens = [
        PodConfig(endpoint="http://m", token="given", token_path=token),
        PodConfig(endpoint="http://m", token_path=token),
        PodConfig(endpoint="http://m", token_path=tmp_path / "none"),
        PodConfig(endpoint="http://m"),
    ]
    channels = [Channel.of(config) for config in tokens]
    assert [found.token() for found in channels if found] == ["given", "from-file", None, None]
