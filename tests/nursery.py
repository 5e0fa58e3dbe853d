"""Starts client processes quickly: each is forked from one that has imported torch already.

Importing torch takes two thirds of a client's life in these tests. What is forked has imported
nothing else: neither `kernels` nor huggingface_hub nor any part of kgate but its start-up hook.
"""

from __future__ import annotations

import atexit
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

TIMEOUT: Final = 120  # seconds

_NURSERY: Final = r"""
import json, os, signal, sys, traceback
import torch

def live(order):
    os.environ.clear()
    os.environ.update(order["environment"])
    os.chdir(order["folder"])
    for number, name in ((1, "stdout"), (2, "stderr")):
        handle = os.open(order[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(handle, number)
    signal.alarm(order["seconds"])
    code = 0
    try:
        exec(compile(order["program"], "<client>", "exec"), {"__name__": "__main__"})
    except SystemExit as exc:
        code = exc.code if isinstance(exc.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    try:
        import atexit
        atexit._run_exitfuncs()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code or 0)

unexpected = sorted({"kernels", "huggingface_hub", "kgate_client.hook"} & set(sys.modules))
print(json.dumps(unexpected), flush=True)
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        live(json.loads(line))
    print(json.dumps(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])), flush=True)
"""

_running: list[subprocess.Popen[str]] = []


def run_forked(
    program: str, environment: Mapping[str, str], folder: Path
) -> subprocess.CompletedProcess[str]:
    """Run a program in a new process that has only torch loaded; returns how it ended."""
    nursery = _nursery()
    assert nursery.stdin is not None
    assert nursery.stdout is not None
    files = {name: folder / f".{name}" for name in ("stdout", "stderr")}
    order = {
        "program": program,
        "environment": dict(environment),
        "folder": str(folder),
        "seconds": TIMEOUT,
        **{name: str(path) for name, path in files.items()},
    }
    nursery.stdin.write(json.dumps(order) + "\n")
    nursery.stdin.flush()
    code = json.loads(nursery.stdout.readline())
    texts = {name: path.read_text(encoding="utf-8") for name, path in files.items()}
    for path in files.values():
        path.unlink()
    return subprocess.CompletedProcess("client", code, texts["stdout"], texts["stderr"])


def _nursery() -> subprocess.Popen[str]:
    if not _running:
        process = subprocess.Popen(
            [sys.executable, "-c", _NURSERY],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert json.loads(process.stdout.readline()) == []
        _running.append(process)
        atexit.register(_close)
    return _running[0]


def _close() -> None:
    while _running:
        _running.pop().communicate(timeout=TIMEOUT)
