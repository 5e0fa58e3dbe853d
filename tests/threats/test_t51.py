"""T51: the candidate under `qualify` cheats, and the judge, in another process, does not care.

Each candidate here really does what it says: patches torch and the clock, looks for keys, tokens
and the judge, lies about what it did. A verdict must come from the judge alone.
"""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from kgate_client.files import digest_files, walk
from kgate_client.qualify.handle import Worker
from kgate_client.qualify.judging import Batch
from tests.qualifykit import METADATA, RIGHT, cases, reasons, try_kernel, write_kernel

WRONG = "def add(out, x, y):\n    out.copy_(x - y)\n"
PATCHES = """
import sys, time, torch
torch.testing.assert_close = lambda *a, **k: None
torch.allclose = torch.equal = lambda *a, **k: True
torch.Tensor.__eq__ = lambda *a: torch.ones(()).bool()
time.perf_counter_ns = time.monotonic_ns = lambda: 0
time.perf_counter = time.monotonic = lambda: 0.0
for name in list(sys.modules):
    if name.startswith("kgate_client.qualify"):
        module = sys.modules[name]
        for function in ("judge", "find_reference", "_ppm"):
            if hasattr(module, function):
                setattr(module, function, lambda *a, **k: {"passed": True})
"""
LIES = """
import json, os, socket, sys
for number in range(3, 64):
    try:
        socket.socket(fileno=os.dup(number)).sendall(
            (json.dumps({"done": True, "nanoseconds": 1, "aliased": False}) + "\\n").encode() * 50)
    except OSError:
        pass
"""
LOOKS = """
import glob, os, socket

def tries(what, *arguments):
    try:
        return repr(what(*arguments))[:200]
    except BaseException as exc:
        return type(exc).__name__

FOUND = {
    "key": tries(lambda: open(%(key)r).read()),
    "cut": tries(os.truncate, %(key)r, 0),
    "written": tries(lambda: open(%(result)r, "w").write("passed")),
    "token": os.environ.get("HF_TOKEN"),
    "environments": [
        text for path in glob.glob("/proc/[0-9]*/environ")
        if %(secret)r in (text := tries(lambda: open(path).read()))
    ],
    "network": tries(socket.create_connection, ("127.0.0.1", %(port)d), 2),
    "killed": tries(os.kill, %(pid)d, 9),
    "memory": tries(lambda: open("/proc/%(pid)d/mem", "rb")),
}
raise RuntimeError(" ".join(f"{name}={value}" for name, value in FOUND.items()))
"""


@pytest.mark.parametrize("attack", [PATCHES, LIES], ids=["patches", "lies"])
def test_t51_a_candidate_that_patches_or_lies_changes_no_verdict(
    tmp_path: Path, attack: str
) -> None:
    result = try_kernel(tmp_path, attack + WRONG)
    assert not result["passed"]
    assert not any(item["equal"] for item in result["tried"])


def test_t51_a_candidate_cannot_make_itself_faster(tmp_path: Path) -> None:
    sleeps = "import time as clock\nSLEEP = clock.sleep\n" + PATCHES
    sleeps += "def add(out, x, y):\n    SLEEP(0.002)\n    torch.add(x, y, out=out)\n"
    file = cases(shapes=[{"x": [8], "y": [8], "out": [8]}])
    result = try_kernel(tmp_path, sleeps, file, speed=True)
    assert result["passed"], reasons(result)
    (timed,) = result["timed"]
    assert timed["kernelNs"] > 1_000_000, "the judge's clock saw the two milliseconds"
    assert result["speedupPpm"] < 100_000


def test_t51_a_candidate_that_computes_after_saying_done_is_wrong(tmp_path: Path) -> None:
    late = (
        "import threading, time\ndef add(out, x, y):\n"
        "    def later():\n        time.sleep(0.2)\n        out.copy_(x + y)\n"
        "    threading.Thread(target=later, daemon=True).start()\n"
    )
    assert not try_kernel(tmp_path, late)["passed"]


def test_t51_a_candidate_cannot_slow_the_fallback_down_beside_it(tmp_path: Path) -> None:
    burns = "import os\nPIDS = []\ndef add(out, x, y):\n    out.copy_(x + y)\n"
    burns += "    if not PIDS:\n        PIDS.append(os.fork())\n        if not PIDS[0]:\n"
    burns += "            os.setsid()\n            while True: pass\n"
    variant, scratch = write_kernel(tmp_path, burns), tmp_path / "scratch"
    scratch.mkdir()
    order = {
        "root": str(variant),
        "manifest": str(digest_files(walk(variant)).digest),
        "name": METADATA["id"],
        "package": "tried",
        "scratch": str(scratch),
        "device": "cpu",
    }
    (case,) = cases().cases
    batch = Batch(case, case.shapes[0], "float32", [0], "cpu")
    worker = Worker(order, {"HOME": str(scratch)}, 60.0)
    try:
        worker.confined()
        worker.loaded()
        for _ in range(2):
            ran = worker.run(case, "float32", batch.layout, batch.filled)
            assert batch.judge(ran) == ("", (0, 0))
            running = worker.descendants()
            assert len(running) == 3, "the one outside of the namespace, the worker, the burner"
            states = [
                Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0]
                for pid in running
            ]
            assert states == ["T", "T", "T"]
    finally:
        worker.close()
    until = time.monotonic() + 30
    while alive := [pid for pid in running if Path(f"/proc/{pid}/exe").exists()]:
        assert time.monotonic() < until, f"{alive} outlived the judge"
        time.sleep(0.05)


def test_t51_a_candidate_finds_neither_keys_nor_tokens_nor_the_judge(tmp_path: Path) -> None:
    secret = "kg_" + "5e" * 20
    key, result_file = tmp_path / "admit.pem", tmp_path / "result.json"
    key.write_text(secret, encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as server:
        places: dict[str, Any] = {
            "key": str(key),
            "result": str(result_file),
            "secret": secret,
            "port": server.getsockname()[1],
            "pid": os.getpid(),
        }
        environ = {**os.environ, "HF_TOKEN": secret}
        result = try_kernel(tmp_path / "kernel", LOOKS % places + RIGHT, environ=environ)
    said = reasons(result)
    assert not result["passed"]
    assert "key=PermissionError" in said
    assert "cut=PermissionError" in said
    assert "written=PermissionError" in said
    assert "token=None environments=[]" in said
    assert "network=OSError" in said or "network=ConnectionRefusedError" in said
    assert "killed=ProcessLookupError" in said
    assert "memory=PermissionError" in said
    assert key.read_text(encoding="utf-8") == secret
    assert not result_file.exists()
    assert secret not in json.dumps(result)
