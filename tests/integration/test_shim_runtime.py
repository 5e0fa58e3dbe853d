"""What a process really has mapped, and what it posts about its loads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from kgate_client import runtime
from kgate_client.entry import run as run_base
from kgate_client.inventory import sbom_of
from kgate_core.digest import Digest
from kgate_core.errors import InvalidInput
from kgate_core.lock import LockedVariant
from tests.podkit import COMMIT, FILES, GET, MODEL, REPO, VARIANT, Pod, lock_of
from tests.threats.test_shim_libraries import GET_NUMBER, _files
from tests.trustkit import manifest_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SBOM = """
from kgate_client import runtime_sbom
print(json.dumps(runtime_sbom()))
"""


@pytest.fixture
def native(tmp_path: Path) -> Pod:
    return Pod.make(tmp_path, files=_files(tmp_path))


def _facts(component: dict[str, Any]) -> dict[str, str]:
    return {item["name"]: item["value"] for item in component["properties"]}


def test_a_process_lists_its_libraries_and_its_kernels(native: Pod, tmp_path: Path) -> None:
    files = _files(tmp_path)
    digest = manifest_of(files).digest

    document = native.run(GET_NUMBER + SBOM).value

    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(document)) is None
    kernel, *libraries = document["components"]
    assert kernel["purl"] == f"pkg:huggingface/{REPO}@{COMMIT}"
    assert _facts(kernel)["kgate:manifest"] == str(digest)
    assert {item["name"] for item in kernel["components"]} == set(files)
    mapped = {item["name"]: item for item in libraries}
    helper = mapped["libhelper.so"]
    assert helper["hashes"][0]["content"] == Digest.of(files["libhelper.so"]).hex
    assert _facts(helper)["kgate:manifest"] == str(digest)
    assert "libtorch_cpu.so" in mapped
    host = {item["name"] for item in document["metadata"]["properties"]}
    assert {"kgate:host:torch", "kgate:host:python"} <= host


def test_drift_against_the_lock_is_told(tmp_path: Path) -> None:
    pod = Pod.make(tmp_path)
    lock = tmp_path / "kgate.lock"
    program = GET + SBOM
    states = {}
    for name, data in (("locked", lock_of()), ("unlocked", b"")):
        lock.write_bytes(data)
        variables = {"KGATE_LOCK": str(lock)} if data else {}
        states[name] = _facts(pod.run(program, **variables).value["components"][0])["kgate:drift"]
    assert states == {"locked": "locked", "unlocked": "unlocked"}

    # A lock that changed under a running pod.
    lock.write_bytes(lock_of())
    better = manifest_of(FILES | {"numbers.py": b"FACTOR = 3\n"}).digest
    newer = lock_of(variants={VARIANT: LockedVariant(better, 1, 1)})
    change = f"open({str(lock)!r}, 'wb').write({newer!r})\n"
    changed = pod.run(GET + change + SBOM, KGATE_LOCK=str(lock)).value
    assert _facts(changed["components"][0])["kgate:drift"] == "differs"


def test_another_process_is_looked_into_although_it_knows_of_nothing(native: Pod) -> None:
    """As a worker that never imports `kernels`: it maps a copy, and the shim was never started."""
    native.run(GET_NUMBER)
    copy = native.cache / "sealed" / manifest_of(_files(native.home)).digest.hex / "libhelper.so"
    program = (
        f"import ctypes, sys\nctypes.CDLL({str(copy)!r})\n"
        "assert 'kernels' not in sys.modules\n"
        "print('ready', flush=True)\nsys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-S", "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
        document = sbom_of(native.environment(), worker.pid)
        worker.communicate("")

    kernel, *libraries = document["components"]
    assert kernel["name"] == REPO
    assert kernel["version"] == COMMIT
    assert "libhelper.so" in {item["name"] for item in libraries}


def test_each_process_can_leave_its_sbom_behind(tmp_path: Path) -> None:
    """A worker that imports torch and nothing of `kernels`; the .pth is there all the same."""
    pod = Pod.make(tmp_path)
    folder = tmp_path / "sboms"

    worker = "import torch, json, os, sys\nassert 'kernels' not in sys.modules\n"
    done = pod.run_fresh(worker + "print(json.dumps(os.getpid()))", KGATE_RUNTIME_SBOM=str(folder))
    broken = pod.run_fresh(worker + "print(json.dumps(1))", KGATE_RUNTIME_SBOM="/proc/nowhere")

    document = json.loads((folder / f"{done.value}.cdx.json").read_text())
    assert "libtorch_cpu.so" in {item["name"] for item in document["components"]}
    assert broken.value == 1


def test_the_base_command_prints_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in Pod.make(tmp_path).environment().items():
        monkeypatch.setenv(name, value)

    assert run_base(["doctor", "--runtime-sbom", str(os.getpid())]) == 0
    assert json.loads(capsys.readouterr().out)["bomFormat"] == "CycloneDX"
    assert run_base(["doctor", "--runtime-sbom", "999999999"]) == 4


def test_a_mapping_whose_file_is_gone_is_said_to_be(tmp_path: Path) -> None:
    process = tmp_path / "7"
    process.mkdir()
    library = process / "root" / "lib" / "x.so"
    library.parent.mkdir(parents=True)
    library.write_bytes(b"now")
    lines = (
        "00-10 r-xp 00000000 08:01 1 /lib/x.so\n10-20 r-xp 00000000 08:01 1 /lib/x.so\n"
        "20-30 r--p 00000000 08:01 2 /lib/data.so\n30-40 r-xp 00000000 00:00 0 [vdso]\n"
        "40-50 r-xp 00000000 08:01 3 /lib/old one.so (deleted)\n"
    )
    (process / "maps").write_text(lines)

    found = list(runtime.mapped_code(7, tmp_path))

    assert found == [
        runtime.Mapped("/lib/x.so", deleted=False, digest=Digest.of(b"now").hex),
        runtime.Mapped("/lib/old one.so", deleted=True, digest=""),
    ]
    with pytest.raises(InvalidInput, match="cannot be looked into"):
        list(runtime.mapped_code(8, tmp_path))


# Posting.


class _Inbox(ThreadingHTTPServer):
    daemon_threads = True
    reports: list[dict[str, Any]]
    tokens: list[str | None]
    wait: threading.Event | None


class _Handler(BaseHTTPRequestHandler):
    server: _Inbox

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.wait is not None:
            self.server.wait.wait(30)
        self.server.reports += [json.loads(line) for line in body.splitlines()]
        self.server.tokens.append(self.headers.get("Authorization"))
        self.send_response(202)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base's name
        """Keep the test's output quiet."""


@pytest.fixture
def inbox() -> Iterator[_Inbox]:
    server = _Inbox(("127.0.0.1", 0), _Handler)
    server.reports, server.tokens, server.wait = [], [], None
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    if server.wait is not None:
        server.wait.set()
    server.shutdown()
    server.server_close()
    thread.join()


LOCAL = """
import json, time
from kernels import get_local_kernel
from pathlib import Path
start = time.monotonic()
get_local_kernel(Path({variant!r}))
print(json.dumps(time.monotonic() - start))
"""


def _online(inbox: _Inbox, **more: str) -> dict[str, str | None]:
    address = f"http://127.0.0.1:{inbox.server_port}"
    return {"HF_HUB_OFFLINE": None, "HF_ENDPOINT": address, "HF_TOKEN": "secret", **more}


def test_decisions_are_posted_in_the_background(tmp_path: Path, inbox: _Inbox) -> None:
    pod = Pod.make(tmp_path)
    program = LOCAL.format(variant=str(pod.variant()))

    pod.run_fresh(program, **_online(inbox))
    assert inbox.reports == []  # nobody asked for it
    result = pod.run_fresh(program, **_online(inbox, KGATE_REPORT_URL="mirror"))

    assert inbox.reports == list(result.reports)
    assert inbox.reports[0]["outcome"] == "loaded"
    assert inbox.tokens == ["Bearer secret"]


def test_the_token_goes_to_the_mirror_only(tmp_path: Path, inbox: _Inbox) -> None:
    pod = Pod.make(tmp_path)
    address = f"http://127.0.0.1:{inbox.server_port}/reports"

    pod.run_fresh(
        LOCAL.format(variant=str(pod.variant())),
        HF_HUB_OFFLINE=None,
        HF_ENDPOINT="http://127.0.0.1:9",
        HF_TOKEN="secret",
        KGATE_REPORT_URL=address,
    )

    assert len(inbox.reports) == 1
    assert inbox.tokens == [None]


@pytest.mark.parametrize("url", ["mirror", "http://127.0.0.1:9/x", "http://[", "gopher://x/y"])
def test_nobody_there_fails_nothing(tmp_path: Path, url: str) -> None:
    pod = Pod.make(tmp_path)

    result = pod.run_fresh(
        LOCAL.format(variant=str(pod.variant())),
        HF_HUB_OFFLINE=None,
        HF_ENDPOINT="http://127.0.0.1:9",
        KGATE_REPORT_URL=url,
    )

    assert [report["outcome"] for report in result.reports] == ["loaded"]


def test_a_mirror_that_hangs_blocks_no_load_and_the_queue_is_bounded(
    tmp_path: Path, inbox: _Inbox
) -> None:
    pod = Pod.make(tmp_path)
    inbox.wait = threading.Event()
    program = (
        LOCAL.format(variant=str(pod.variant()))
        + """
from kgate_client.process import current
pod = current()
start = time.monotonic()
for _ in range(1000):
    pod.reporter._poster.put(b"{}")
print(json.dumps([len(pod.reporter._poster._queue), pod.reporter._poster.dropped > 0,
                  time.monotonic() - start]))
"""
    )
    waiting, dropped, seconds = pod.run_fresh(
        program, **_online(inbox, KGATE_REPORT_URL="mirror")
    ).value

    assert waiting <= 256
    assert dropped
    assert seconds < 1


def test_forked_workers_post_for_themselves(tmp_path: Path, inbox: _Inbox) -> None:
    pod = Pod.make(tmp_path)
    program = (
        LOCAL.format(variant=str(pod.variant()))
        + """
import os, time
from kgate_client.process import current
if os.fork() == 0:
    poster = current().reporter._poster
    poster.put(json.dumps({"child": True}).encode())
    end = time.monotonic() + 20
    while (poster._queue or poster._busy) and time.monotonic() < end:
        time.sleep(0.05)  # a busy machine takes longer than the moment that a pod gives
    poster.close()
    os._exit(0)
os.wait()
print(json.dumps(0))
"""
    )
    pod.run_fresh(program, **_online(inbox, KGATE_REPORT_URL="mirror"))

    assert sorted(str(report.get("child")) for report in inbox.reports) == ["None", "True"]


def test_offline_opens_no_socket_for_reports(tmp_path: Path) -> None:
    pod = Pod.make(tmp_path)
    program = (
        "import sys\nseen = []\n"
        "sys.addaudithook(lambda e, a: seen.append(e) if e.startswith('socket.') else None)\n"
        + MODEL
        + "\nrun()\nprint(json.dumps(seen))"
    )
    assert pod.run(program, KGATE_REPORT_URL="mirror").value == []
