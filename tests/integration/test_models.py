"""Models from a delegate beside kernels from kgate: one process, one endpoint (T53, T58)."""

from __future__ import annotations

import http.server
import threading
import urllib.error
import urllib.request
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from kgate_core.kernel import KernelRef
from kgate_mirror_server.catalog.tokens import SqlTokens
from kgate_mirror_server.hubsim import HubSimulator
from kgate_mirror_server.serve.settings import AccessSettings, DelegateSettings, ServeSettings
from tests.clients import run_ungated
from tests.mirrorkit import FILES, VARIANT, MirrorKit, make_mirror, served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WEIGHTS = bytes(range(256)) * 8000
MODEL = {
    "config.json": b'{"model_type": "tiny"}',
    "model.safetensors": WEIGHTS,
    "sub/vocab.txt": b"a b c",
}
CODE = {
    "config.json": b'{"auto_map": {"AutoModel": "modeling.Model"}}',
    "modeling.py": b"print('owned')",
    "pytorch_model.bin": b"\x80\x04owned",
}


def lay(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubSimulator]:
    root = tmp_path_factory.mktemp("hub")
    with HubSimulator(page_size=2) as hub:
        hub.publish("acme/model", lay(root / "model", MODEL), branch="main")
        hub.publish("acme/code", lay(root / "code", CODE), branch="main")
        build = {f"build/{VARIANT}/{name}": data for name, data in FILES.items()}
        hub.publish("acme/disguised", lay(root / "kernel", build), branch="main")
        hub.publish("acme/relu", lay(root / "relu", build), branch="main")
        yield hub


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> MirrorKit:
    kit = make_mirror(tmp_path_factory.mktemp("mirror"))
    kit.publish()
    kit.deny(repo=KernelRef("acme", "evil"))
    return kit


def delegated(kit: MirrorKit, hub: HubSimulator, **changes: object) -> ServeSettings:
    delegate = replace(DelegateSettings(hub.url), **changes)  # type: ignore[arg-type]  # test's own
    return replace(kit.settings, delegate=delegate)


@pytest.fixture(scope="module")
def address(kit: MirrorKit, hub: HubSimulator) -> Iterator[str]:
    with served(delegated(kit, hub)) as address:
        yield address


@pytest.fixture(scope="module")
def strict(kit: MirrorKit, hub: HubSimulator) -> Iterator[str]:
    lanes = frozenset({kit.settings.lane})
    with served(delegated(kit, hub, strict_lanes=lanes)) as address:
        yield address


def get(url: str, **headers: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=20
        ) as reply:
            return reply.status, reply.read()
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, exc.read()


def test_one_process_gets_weights_from_the_delegate_and_a_kernel_from_kgate(
    address: str, tmp_path: Path
) -> None:
    program = """
import json, kernels
from pathlib import Path
from huggingface_hub import HfApi, snapshot_download
folder = Path(snapshot_download("acme/model"))
files = {str(p.relative_to(folder)): p.stat().st_size for p in folder.rglob("*") if p.is_file()}
checked = HfApi().verify_repo_checksums("acme/model")
answer = kernels.get_kernel("acme/relu", version=1).ANSWER
print(json.dumps([files, len(checked.mismatches), answer]))
"""
    files, mismatches, answer = run_ungated(program, tmp_path, endpoint=address)
    assert files == {name: len(data) for name, data in MODEL.items()}
    assert (mismatches, answer) == (0, 42)


def test_ranges_of_weights_are_passed_on(address: str) -> None:
    place = f"{address}/acme/model/resolve/main/model.safetensors"
    assert get(place, Range="bytes=1000-1999") == (206, WEIGHTS[1000:2000])


def test_t58_kernel_builds_are_not_delegated_under_any_name(address: str) -> None:
    for place in (
        "/api/models/acme/disguised",
        "/api/models/acme/disguised/tree/main?recursive=true",
        "/api/models/acme/disguised/revision/main",
        "/acme/disguised/resolve/main/README.md",
        f"/acme/disguised/resolve/main/build/{VARIANT}/__init__.py",
        f"/acme/model/resolve/main/build/{VARIANT}/__init__.py",
        "/api/models/acme/model/tree/main/build",
    ):
        status, body = get(address + place)
        assert status == 404, place
        assert b"relu" not in body


def test_t58_names_that_the_catalog_knows_as_kernels_never_reach_the_delegate(
    address: str, hub: HubSimulator
) -> None:
    hub.forget_requests()
    assert get(f"{address}/acme/relu/resolve/main/build/{VARIANT}/layers.py")[0] == 200
    assert get(f"{address}/acme/relu/resolve/main/README.md")[0] == 404
    assert get(f"{address}/api/models/acme/evil")[0] == 404
    assert get(f"{address}/api/kernels/acme/model/tree/main/build") == (200, b"[]")
    assert get(f"{address}/kernels/acme/model/resolve/main/config.json")[0] == 404
    assert hub.requests == ()


def test_t53_code_and_pickles_are_refused_in_a_strict_lane(strict: str) -> None:
    for name in CODE:
        status, body = get(f"{strict}/acme/code/resolve/main/{name}")
        assert status == 403, name
        assert b"owned" not in body
    assert get(f"{strict}/acme/model/resolve/main/config.json") == (200, MODEL["config.json"])
    assert get(f"{strict}/acme/model/resolve/main/model.safetensors") == (200, WEIGHTS)


def test_t53_code_is_served_and_reported_elsewhere(address: str) -> None:
    assert get(f"{address}/acme/code/resolve/main/modeling.py") == (200, CODE["modeling.py"])


def test_t53_an_allowed_repository_may_carry_code(kit: MirrorKit, hub: HubSimulator) -> None:
    lanes = frozenset({kit.settings.lane})
    settings = delegated(kit, hub, strict_lanes=lanes, code_allowed=("acme/co*",))
    with served(settings) as address:
        assert get(f"{address}/acme/code/resolve/main/modeling.py")[0] == 200
        assert get(f"{address}/l/made-up/acme/code/resolve/main/modeling.py")[0] == 404


def test_addresses_that_climb_do_not_reach_the_delegate(address: str, hub: HubSimulator) -> None:
    hub.forget_requests()
    for place in (
        "/acme/model/resolve/main/../../../../api/kernels/acme/relu",
        "/acme/model/resolve/main/%2e%2e/%2e%2e/x",
        "/acme/model/resolve/..%2f..%2fx/y",
        "/api/models/acme/model/tree/main/..%2f..",
        "/api/models/../../x/refs",
    ):
        assert get(address + place)[0] in {400, 404}, place
    assert hub.requests == ()


class Stranger(http.server.BaseHTTPRequestHandler):
    """Another host: a delegate that redirects to one, or that one; notes what it is told."""

    target = ""
    seen: list[tuple[str, str | None]] = []  # noqa: RUF012  # shared on purpose

    def do_GET(self) -> None:
        self.seen.append((self.path, self.headers.get("Authorization")))
        if "/tree/" in self.path:
            self.send_error(404)
        elif self.target:
            self.send_response(302)
            self.send_header("Location", self.target + "/blob")
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self.send_response(200)
            self.send_header("Content-Length", "5")
            self.end_headers()
            self.wfile.write(b"bytes")

    def log_message(self, *_: object) -> None:
        pass


def test_credentials_go_to_the_delegates_host_and_to_no_other(
    kit: MirrorKit, tmp_path: Path
) -> None:
    far = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Far", (Stranger,), {"seen": []}))
    near = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0),
        type("Near", (Stranger,), {"seen": [], "target": f"http://127.0.0.1:{far.server_port}"}),
    )
    for server in (far, near):
        threading.Thread(target=server.serve_forever, daemon=True).start()
    token = tmp_path / "token"
    token.write_text("secret-of-the-mirror\n")
    delegate = DelegateSettings(f"http://127.0.0.1:{near.server_port}", token_file=token)
    tokens = SqlTokens(kit.catalog.engine)
    text, _ = tokens.create("x", ("*/*",), (), now=kit.trust.now, expires_at=None)
    access = AccessSettings(tokens=True)
    with served(replace(kit.settings, delegate=delegate, access=access)) as address:
        place = f"{address}/some/model/resolve/main/weights.safetensors"
        assert get(place)[0] == 404  # who may see nothing sees no models either
        assert get(place, Authorization=f"Bearer {text}") == (200, b"bytes")
    for server in (far, near):
        server.shutdown()
        server.server_close()
    seen_near, seen_far = near.RequestHandlerClass.seen, far.RequestHandlerClass.seen  # type: ignore[attr-defined]  # Stranger's
    assert {header for _, header in seen_near} == {"Bearer secret-of-the-mirror"}
    assert seen_far == [("/blob", None)]


def test_a_delegate_that_is_down_is_a_clear_error(kit: MirrorKit) -> None:
    settings = replace(kit.settings, delegate=DelegateSettings("http://127.0.0.1:1"))
    with served(settings) as address:
        status, body = get(f"{address}/api/models/some/model")
        assert status == 503
        assert b"does not answer" in body
        assert get(f"{address}/api/kernels/acme/relu/tree/v1/build")[0] == 200
