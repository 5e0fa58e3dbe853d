"""Where pods really run: threads, forks, many processes, read-only disks, other users, no home."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from tests.podkit import COMMIT, FILES, GET, MODEL, REPO, VARIANT, Pod

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOBODY = 65534
GET_FILE = f"""
import json
from kernels import get_kernel
kernel = get_kernel({REPO!r}, revision={COMMIT!r})
print(json.dumps([kernel.double(1), kernel.__file__]))
"""


@pytest.fixture
def pod(tmp_path: Path) -> Pod:
    return Pod.make(tmp_path)


def test_many_threads_get_one_module(pod: Pod) -> None:
    program = f"""
import json
from concurrent.futures import ThreadPoolExecutor
from kernels import get_kernel
with ThreadPoolExecutor(16) as pool:
    found = list(pool.map(lambda _: get_kernel({REPO!r}, revision={COMMIT!r}), range(64)))
print(json.dumps(len(set(map(id, found)))))
"""
    result = pod.run(program)

    assert result.value == 1
    assert result.stdout.count("kernel ran") == 1


def test_forked_and_spawned_workers_load_too(pod: Pod) -> None:
    (pod.home / "work.py").write_text(
        "def work(_):\n"
        "    from kernels import get_kernel\n"
        f"    return get_kernel({REPO!r}, revision={COMMIT!r}).double(21)\n"
    )
    program = """
import json, multiprocessing, os, sys
sys.path.insert(0, os.getcwd())
from work import work
outcomes = {"parent": work(0)}
for method in ("fork", "spawn"):
    with multiprocessing.get_context(method).Pool(2) as pool:
        outcomes[method] = pool.map(work, range(4))
print(json.dumps(outcomes))
"""
    result = pod.run_fresh(program)

    assert result.value == {"parent": 42, "fork": [42] * 4, "spawn": [42] * 4}


def test_a_child_forked_while_a_thread_loads_is_not_stuck(pod: Pod) -> None:
    slow = b"import pathlib, time\npathlib.Path('started').touch()\ntime.sleep(1)\n"
    files = FILES | {"__init__.py": slow + FILES["__init__.py"]}
    pod.cache_kernel(files, repo="acme/slow")
    pod.admit(files, repo="acme/slow")
    program = f"""
import json, os, pathlib, threading, time
from kernels import get_kernel
slow = threading.Thread(target=get_kernel, args=("acme/slow",), kwargs={{"revision": {COMMIT!r}}})
slow.start()
while not pathlib.Path("started").exists():
    time.sleep(0.01)
child = os.fork()
if child == 0:
    os._exit(0 if get_kernel({REPO!r}, revision={COMMIT!r}).double(1) == 2 else 1)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
slow.join()
print(json.dumps(code))
"""
    assert pod.run(program).value == 0


def test_many_processes_share_one_empty_cache(pod: Pod) -> None:
    with ThreadPoolExecutor(8) as pool:
        results = list(
            pool.map(
                lambda number: subprocess.run(
                    [sys.executable, "-c", _without_kernels(pod)],
                    env=pod.environment(KGATE_REPORT=str(pod.home / f"{number}.jsonl")),
                    capture_output=True,
                    text=True,
                    timeout=120,
                    check=False,
                ),
                range(50),
            )
        )

    assert [done.stderr for done in results if done.returncode] == []
    assert {done.stdout for done in results} == {"42\n"}
    assert len(list((pod.cache / "sealed").iterdir())) == 1


def _without_kernels(pod: Pod) -> str:
    """Return a program that goes through the gate without importing torch fifty times."""
    return f"""
from pathlib import Path
from kgate_client.asked import Asked
from kgate_client.process import current
pod = current()
answer = pod.gate.check(Asked({REPO!r}, {COMMIT!r}), Path({str(pod.variant())!r}))
print(42 if answer.sealed == pod.sealed.path(answer.manifest.digest) else answer)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_an_arbitrary_user_on_a_cache_of_others_gets_a_private_copy(pod: Pod) -> None:
    for parent in (pod.home, *pod.home.parents):
        if parent != parent.parent and parent.stat().st_uid == os.geteuid():
            parent.chmod(parent.stat().st_mode | 0o055)
    scratch = pod.home / "tmp"
    scratch.mkdir()
    scratch.chmod(0o1777)
    # Everything is imported before: that user cannot read this test environment.
    program = f"""
import concurrent.futures.thread, json, os, tempfile
from pathlib import Path
from kgate_client.asked import Asked
from kgate_client.process import build
def check():
    pod = build(os.environ)
    return pod.gate.check(Asked({REPO!r}, {COMMIT!r}), Path({str(pod.variant())!r}), seal=True)
first = check()
os.chmod({str(pod.cache)!r}, 0o755)
os.setgid({NOBODY}); os.setuid({NOBODY})
tempfile.tempdir = {str(scratch)!r}
answer = check()
print(json.dumps([str(first.sealed), str(answer.sealed), oct(answer.sealed.stat().st_mode)]))
"""
    first, second, mode = pod.run(program).value

    assert first.startswith(str(pod.cache / "sealed"))
    assert second.startswith(str(scratch / "kgate-"))
    assert mode == "0o40500"


def test_a_verified_node_cache_is_used_where_it_is(pod: Pod) -> None:
    first = pod.run(GET_FILE).value[1]
    sealed = pod.cache / "sealed"
    sealed.chmod(0o755)
    (pod.cache).chmod(0o777)
    try:
        shared = pod.run(GET_FILE, TMPDIR=str(pod.home))
    finally:
        pod.cache.chmod(0o700)

    assert shared.value == [2, first]
    assert shared.reports[0]["milliseconds"].get("copy") is None


def test_a_full_or_missing_report_changes_nothing(pod: Pod) -> None:
    assert pod.run(GET, KGATE_REPORT="/dev/full").value["outcome"] == "loaded"
    assert pod.run(GET, KGATE_REPORT="/proc/nowhere").value["outcome"] == "loaded"


def test_no_socket_is_opened_when_the_cache_is_warm(pod: Pod) -> None:
    program = (
        "import sys\nseen = []\n"
        "sys.addaudithook(lambda e, a: seen.append(e) if e.startswith('socket.') else None)\n"
        + GET_FILE
        + "\nprint(json.dumps(seen))"
    )
    assert pod.run(program).value == []


def test_a_compiled_model_runs_with_a_gated_layer(pod: Pod) -> None:
    program = (
        MODEL
        + f"""
model = nn.Sequential(Double())
mapping = {{"Double": {{"cpu": LayerRepository({REPO!r}, layer_name="Double",
                                              revision={COMMIT!r})}}}}
with use_kernel_mapping(mapping, inherit_mapping=False):
    kernelize(model, mode=Mode.INFERENCE, device="cpu")
compiled = torch.compile(model, backend="eager", fullgraph=True)
print(json.dumps(compiled(torch.ones(3)).tolist()))
"""
    )
    assert pod.run(program).value == [2.0, 2.0, 2.0]


def test_calls_of_a_gated_kernel_go_straight_to_its_function(pod: Pod) -> None:
    program = f"""
import json
from kernels import get_kernel
kernel = get_kernel({REPO!r}, revision={COMMIT!r})
print(json.dumps([type(kernel).__name__, kernel.double.__code__.co_filename == kernel.__file__]))
"""
    assert pod.run(program).value == ["module", True]


BEHAVIOUR = f"""
import json
from kernels import get_kernel, get_local_kernel, get_loaded_kernels
outcomes = []
for way in (
    lambda: get_kernel({REPO!r}, revision={COMMIT!r}),
    lambda: get_kernel({REPO!r}, version=1),
    lambda: get_kernel({REPO!r}, version=7),
    lambda: get_kernel("acme/unknown", version=1),
    lambda: get_kernel("no repository"),
    lambda: get_local_kernel("/nowhere"),
):
    try:
        module = way()
        outcomes.append([module.__name__, module.__file__, module.double(2)])
    except Exception as exc:
        outcomes.append([type(exc).__name__, str(exc)])
print(json.dumps([outcomes, len(get_loaded_kernels())]))
"""


def test_observe_does_no_harm_when_kgate_itself_is_broken(pod: Pod) -> None:
    without = pod.run_without_shim(BEHAVIOUR)
    broken = "import sys\nsys.modules['cryptography'] = None\nsys.modules['kgate_core'] = None\n"

    observed = pod.run(broken + BEHAVIOUR, KGATE_MODE="observe", KGATE_TRUST_ROOT=None)
    enforced = pod.run(broken + GET)

    assert observed.value == without.value
    assert enforced.value["reason"] == "gate-broken"
    assert json.dumps(enforced.value).count("kgate does not work here") == 1


class _Mirror(ThreadingHTTPServer):
    daemon_threads = True
    documents: dict[str, bytes]
    asked: list[str]


class _Handler(BaseHTTPRequestHandler):
    server: _Mirror

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        data = self.server.documents.get(self.path)
        self.send_response(404 if data is None else 200)
        self.end_headers()
        self.wfile.write(b'{"error": "", "reason": "nothing here"}' if data is None else data)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base's name
        """Keep the test's output quiet."""


@pytest.fixture
def mirror(pod: Pod) -> Iterator[_Mirror]:
    """Serve what the pod's cache held, and empty that cache."""
    server = _Mirror(("127.0.0.1", 0), _Handler)
    server.asked, server.documents = [], {}
    for path in (pod.cache / "trust").iterdir():
        server.documents[f"/api/kgate/v1/trust/{path.name}"] = path.read_bytes()
    for path in (pod.cache / "attestations").iterdir():
        name = f"{REPO}/{COMMIT}/{VARIANT}"
        server.documents[f"/api/kgate/v1/attestations/{name}"] = path.read_bytes()
    shutil.rmtree(pod.cache)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def _local(pod: Pod) -> str:
    return f"""
import json
from kernels import get_local_kernel
from pathlib import Path
kernel = get_local_kernel(Path({str(pod.variant())!r}))
print(json.dumps([kernel.double(1), kernel.__file__]))
"""


def _endpoint(mirror: _Mirror) -> dict[str, str | None]:
    return {"HF_HUB_OFFLINE": None, "HF_ENDPOINT": f"http://127.0.0.1:{mirror.server_port}"}


def test_an_empty_cache_is_filled_from_the_mirror_and_then_works_offline(
    pod: Pod, mirror: _Mirror
) -> None:
    first = pod.run(_local(pod), **_endpoint(mirror))
    asked = list(mirror.asked)
    offline = pod.run(_local(pod))

    assert first.value[0] == offline.value[0] == 2
    assert sorted(asked) == [
        f"/api/kgate/v1/attestations/{REPO}/{COMMIT}/{VARIANT}",
        "/api/kgate/v1/trust/2.root.json",
        "/api/kgate/v1/trust/snapshot.json",
        "/api/kgate/v1/trust/targets.json",
        "/api/kgate/v1/trust/timestamp.json",
    ]
    assert mirror.asked == asked


def test_without_a_home_directory_nothing_is_kept_and_everything_works(
    pod: Pod, mirror: _Mirror
) -> None:
    scratch = pod.home / "tmp"
    scratch.mkdir()

    result = pod.run(_local(pod), HOME=None, HF_HOME=None, TMPDIR=str(scratch), **_endpoint(mirror))

    assert result.value[0] == 2
    assert result.value[1].startswith(str(scratch / "kgate-"))
    assert list(scratch.glob("kgate-*")) == []
    assert not pod.cache.exists()


def test_what_the_mirror_says_about_a_missing_kernel_reaches_the_user(
    pod: Pod, mirror: _Mirror
) -> None:
    mirror.documents = {
        path: data for path, data in mirror.documents.items() if "attestations" not in path
    }
    program = f"""
import json
from kernels import get_local_kernel
from pathlib import Path
try:
    get_local_kernel(Path({str(pod.variant())!r}))
except FileNotFoundError as exc:
    print(json.dumps(exc.message))
"""
    result = pod.run(program, **_endpoint(mirror))

    assert result.value == "nothing here"
