"""Ways to the mirror: a private certificate authority, a proxy; and a compiled model behind it."""

from __future__ import annotations

import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from tests.podkit import COMMIT, MODEL, REPO, VARIANT, Pod
from tests.registrykit import make_certificates

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class _Mirror(ThreadingHTTPServer):
    daemon_threads = True
    documents: dict[str, bytes]
    asked: list[str]


class _Handler(BaseHTTPRequestHandler):
    """Answers as the mirror, and as a proxy in front of `http://mirror.invalid`."""

    server: _Mirror

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        data = self.server.documents.get(self.path.removeprefix("http://mirror.invalid"))
        self.send_response(404 if data is None else 200)
        self.end_headers()
        self.wfile.write(data or b"{}")

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:
            return  # a client that does not believe the certificate hangs up

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base's name
        """Keep the test's output quiet."""


@pytest.fixture
def pod(tmp_path: Path) -> Pod:
    return Pod.make(tmp_path)


@pytest.fixture
def mirror(pod: Pod) -> Iterator[_Mirror]:
    """Serve what the pod's cache held; the cache is emptied by each test's other HF_HOME."""
    server = _Mirror(("127.0.0.1", 0), _Handler)
    server.asked, server.documents = [], {}
    for path in (pod.cache / "trust").iterdir():
        server.documents[f"/api/kgate/v1/trust/{path.name}"] = path.read_bytes()
    for path in (pod.cache / "attestations").iterdir():
        name = f"{REPO}/{COMMIT}/{VARIANT}"
        server.documents[f"/api/kgate/v1/attestations/{name}"] = path.read_bytes()
    yield server  # not started: a test may want TLS on it
    server.shutdown()
    server.server_close()


def _serve(mirror: _Mirror) -> None:
    threading.Thread(target=mirror.serve_forever, args=(0.01,), daemon=True).start()


def _load(pod: Pod, cache: str = "empty", **variables: str | None) -> Any:
    program = f"""
import json
from kernels import get_local_kernel
from pathlib import Path
try:
    print(json.dumps(get_local_kernel(Path({str(pod.variant())!r})).double(1)))
except FileNotFoundError as exc:
    print(json.dumps(exc.reason))
"""
    own = str(pod.home / cache)
    return pod.run(program, HF_HUB_OFFLINE=None, KGATE_CACHE=own, **variables).value


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_a_private_certificate_authority_is_believed_where_it_is_named(
    pod: Pod, mirror: _Mirror, variable: str
) -> None:
    authority = make_certificates(pod.home)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pod.home / "server.pem", pod.home / "server-key.pem")
    mirror.socket = context.wrap_socket(mirror.socket, server_side=True)
    _serve(mirror)
    endpoint = f"https://127.0.0.1:{mirror.server_port}"

    assert _load(pod, HF_ENDPOINT=endpoint) == "no-trust"
    assert mirror.asked == []
    assert _load(pod, HF_ENDPOINT=endpoint, **{variable: str(authority)}) == 2


def test_a_proxy_is_used_unless_the_host_is_excepted(pod: Pod, mirror: _Mirror) -> None:
    _serve(mirror)
    proxy = f"http://127.0.0.1:{mirror.server_port}"

    loaded = _load(pod, HF_ENDPOINT="http://mirror.invalid", http_proxy=proxy)
    asked = list(mirror.asked)
    excepted = _load(
        pod,
        HF_ENDPOINT="http://mirror.invalid",
        http_proxy=proxy,
        no_proxy="mirror.invalid",
        cache="other",
    )

    assert loaded == 2
    assert asked
    assert all(path.startswith("http://mirror.invalid/api/kgate/v1/") for path in asked)
    assert excepted == "no-trust"
    assert mirror.asked == asked


@pytest.mark.matrix  # the compiler of a first run takes a minute
def test_torch_compile_generates_code_around_a_gated_layer(pod: Pod) -> None:
    program = (
        MODEL
        + f"""
model = nn.Sequential(Double(), nn.ReLU())
mapping = {{"Double": {{"cpu": LayerRepository({REPO!r}, layer_name="Double",
                                              revision={COMMIT!r})}}}}
with use_kernel_mapping(mapping, inherit_mapping=False):
    kernelize(model, mode=Mode.INFERENCE | Mode.TORCH_COMPILE, device="cpu")
compiled = torch.compile(model, backend="inductor", fullgraph=True)
print(json.dumps(compiled(torch.tensor([-1.0, 3.0])).tolist()))
"""
    )
    scratch = str(pod.home / "inductor")
    result = pod.run(program, TORCHINDUCTOR_CACHE_DIR=scratch, TORCHINDUCTOR_COMPILE_THREADS="1")

    assert result.value == [0.0, 6.0]
    assert [report["outcome"] for report in result.reports] == ["loaded"]
