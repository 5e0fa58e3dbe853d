"""Every way in which a kernel can fail to load ends in the fallback, quickly and with one line.

A small server plays the Hub; the client is the stock one, with the shim. What is compared is a
model's output and the time it took: the client alone would raise, or retry for 23 seconds.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from tests.podkit import COMMIT, FILES, MODEL, REPO, VARIANT, Pod

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

REFS = {
    "branches": [{"name": "v1", "ref": "refs/heads/v1", "targetCommit": COMMIT}],
    "converts": [],
    "tags": [],
}
OVERVIEW = {"name": "acme", "fullname": "Acme", "avatarUrl": "", "trustedKernelPublisher": True}
RUN = (
    MODEL
    + """
import time
start = time.monotonic()
result = run(version=1)
print(json.dumps(result | {"seconds": time.monotonic() - start}))
"""
)
RUN_LAYERS = RUN.replace("nn.Sequential(Double())", "nn.Sequential(*[Double() for _ in range(12)])")

Answer = tuple[int, dict[str, str], Any]


class _Hub(ThreadingHTTPServer):
    daemon_threads = True
    answers: dict[str, Answer]
    asked: list[str]


class _Handler(BaseHTTPRequestHandler):
    server: _Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.server.asked.append(path)
        status, headers, body = self.server.answers.get(
            path, (404, {"X-Error-Code": "RepoNotFound"}, {"error": "Repository not found"})
        )
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base's name
        """Keep the test's output quiet."""


@pytest.fixture
def hub() -> Iterator[_Hub]:
    server = _Hub(("127.0.0.1", 0), _Handler)
    server.answers = {
        "/api/organizations/acme/overview": (200, {}, OVERVIEW),
        f"/api/kernels/{REPO}/refs": (200, {}, REFS),
        f"/api/kernels/{REPO}/tree/{COMMIT}/build": (200, {}, []),
    }
    server.asked = []
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def _online(hub: _Hub) -> dict[str, str | None]:
    return {"HF_HUB_OFFLINE": None, "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}"}


def _untrusted(hub: _Hub) -> None:
    hub.answers["/api/organizations/acme/overview"] = (
        200,
        {},
        OVERVIEW | {"trustedKernelPublisher": False},
    )


def _unknown_repo(hub: _Hub) -> None:
    del hub.answers[f"/api/kernels/{REPO}/refs"]


def _gated(hub: _Hub) -> None:
    hub.answers[f"/api/kernels/{REPO}/refs"] = (
        403,
        {"X-Error-Code": "GatedRepo"},
        {"error": "gated"},
    )


def _no_version(hub: _Hub) -> None:
    hub.answers[f"/api/kernels/{REPO}/refs"] = (200, {}, REFS | {"branches": []})


def _no_build(hub: _Hub) -> None:
    """Leave the empty `build` folder of a denied kernel."""


def _other_build(hub: _Hub) -> None:
    entry = {"type": "directory", "oid": "0" * 40, "size": 0}
    hub.answers[f"/api/kernels/{REPO}/tree/{COMMIT}/build"] = (
        200,
        {},
        [entry | {"path": "build/torch213-cxx11-cu130-x86_64-linux"}],
    )


def _broken(hub: _Hub) -> None:
    hub.answers[f"/api/kernels/{REPO}/tree/{COMMIT}/build"] = (
        404,
        {"X-Error-Code": "RevisionNotFound"},
        {"error": "no such revision"},
    )


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (_untrusted, "untrusted-publisher"),
        (_unknown_repo, "not-found"),
        (_gated, "gated"),
        (_no_version, "version-not-found"),
        (_no_build, "no-build"),
        (_other_build, "no-build"),
        (_broken, "revision-not-found"),
    ],
)
def test_a_kernel_that_the_mirror_does_not_give_falls_back(
    tmp_path: Path, hub: _Hub, fault: Callable[[_Hub], None], reason: str
) -> None:
    pod = Pod.make(tmp_path)
    fault(hub)

    result = pod.run(RUN, **_online(hub))

    assert result.value["outcome"] == "fallback"
    assert result.value["value"] == [2.0, 2.0]
    assert [report["reason"] for report in result.reports] == [reason]
    assert result.stderr.count("kgate: ") == 1


@pytest.mark.parametrize("program", [RUN, RUN_LAYERS], ids=["one layer", "twelve layers"])
def test_a_dead_endpoint_costs_no_retries(tmp_path: Path, program: str) -> None:
    pod = Pod.make(tmp_path)

    result = pod.run(program, HF_HUB_OFFLINE=None, HF_ENDPOINT="http://127.0.0.1:9")

    assert result.value["outcome"] == "fallback"
    assert result.value["seconds"] < 5
    assert {report["reason"] for report in result.reports} == {"unreachable"}
    assert result.stderr.count("kgate: ") == 1


@pytest.mark.parametrize(
    "code",
    [
        b"raise ImportError('undefined symbol: _ZN3c10')",
        b"raise RuntimeError('CUDA driver version is insufficient')",
        b"import ctypes; ctypes.CDLL('libnot-there.so.13')",
        b"import a_module_that_is_not_installed",
    ],
)
def test_an_admitted_kernel_that_does_not_fit_this_machine_falls_back(
    tmp_path: Path, code: bytes
) -> None:
    files = FILES | {"__init__.py": code + b"\nfrom . import layers\n"}
    pod = Pod.make(tmp_path, files=files)

    result = pod.run(MODEL + "\nprint(json.dumps(run(version=1)))")

    assert result.value == {"outcome": "fallback", "value": [2.0, 2.0]}
    assert "import-error" in {report["outcome"] for report in result.reports}


def test_without_fallback_the_caller_gets_the_error(tmp_path: Path, hub: _Hub) -> None:
    pod = Pod.make(tmp_path)
    _unknown_repo(hub)
    program = (
        MODEL
        + """
from kgate_client import KgateBlocked
try:
    run(use_fallback=False, version=1)
except KgateBlocked as exc:
    print(json.dumps([exc.reason, type(exc.__cause__).__name__]))
"""
    )

    assert pod.run(program, **_online(hub)).value == ["not-found", "RepositoryNotFoundError"]


def test_a_wrong_layer_stays_a_programming_error(tmp_path: Path) -> None:
    files = FILES | {"layers.py": b"class Double:\n    pass\n"}
    pod = Pod.make(tmp_path, files=files)
    program = (
        MODEL
        + """
try:
    run()
except TypeError as exc:
    print(json.dumps(str(exc)))
"""
    )

    assert "is not a Torch layer" in pod.run(program).value


TRANSFORMERS = """
import json, sys
from transformers.integrations import hub_kernels
outcomes = {{}}
for repo in {repos!r}:
    hub_kernels._HUB_KERNEL_MAPPING[repo] = {{"repo_id": repo, "version": 1}}
    module = hub_kernels.lazy_load_kernel(repo)
    outcomes[repo] = None if module is None else module.double(3)
print(json.dumps(outcomes))
"""


def test_transformers_runs_without_a_kernel_that_is_not_there(tmp_path: Path, hub: _Hub) -> None:
    pod = Pod.make(tmp_path)
    repos = ("rogue/untrusted", "acme/unknown", "acme/gated", "acme/unversioned", REPO)
    hub.answers |= {
        "/api/organizations/rogue/overview": (
            200,
            {},
            OVERVIEW | {"trustedKernelPublisher": False},
        ),
        "/api/kernels/acme/gated/refs": (403, {"X-Error-Code": "GatedRepo"}, {"error": "gated"}),
        "/api/kernels/acme/unversioned/refs": (200, {}, REFS | {"branches": []}),
    }

    result = pod.run(TRANSFORMERS.format(repos=repos), **_online(hub))

    assert result.value == dict.fromkeys(repos)
    assert [report["reason"] for report in result.reports] == [
        "untrusted-publisher",
        "not-found",
        "gated",
        "version-not-found",
        "no-build",
    ]


def test_transformers_runs_with_an_admitted_and_without_an_unsigned_kernel(tmp_path: Path) -> None:
    pod = Pod.make(tmp_path)
    pod.cache_kernel(FILES, repo="acme/unsigned")

    result = pod.run(TRANSFORMERS.format(repos=(REPO, "acme/unsigned")))

    assert result.value == {REPO: 6, "acme/unsigned": None}
    assert result.reports[1]["variant"] == VARIANT


PLAIN = f"""
import json
import kgate_client

@kgate_client.fallback({REPO!r}, "double", version=1)
def double(x):
    return x + x + 0.5

class Own:
    FACTOR = "own"

module = kgate_client.load({REPO!r}, version=1, fallback=Own)
try:
    kgate_client.load({REPO!r}, version=1)
    bare = "loaded"
except kgate_client.KgateBlocked as exc:
    bare = exc.reason
print(json.dumps([double(3), double(4), module.FACTOR, bare]))
"""


def test_plain_code_gets_the_kernel_or_its_own_function(tmp_path: Path) -> None:
    pod = Pod.make(tmp_path)
    loaded = pod.run(PLAIN)
    (pod.variant() / "added.py").write_text("")
    refused = pod.run(PLAIN)

    assert loaded.value == [6, 8, 2, "loaded"]
    assert refused.value == [6.5, 8.5, "own", "integrity"]
    assert refused.stderr.count("kgate: ") == 1


def test_a_switch_for_telemetry_does_not_break_loads(tmp_path: Path, hub: _Hub) -> None:
    pod = Pod.make(tmp_path)

    result = pod.run(RUN, HF_HUB_DISABLE_TELEMETRY="1", **_online(hub))

    assert [report["reason"] for report in result.reports] == ["no-build"]
    assert f"/api/kernels/{REPO}/refs" in hub.asked
