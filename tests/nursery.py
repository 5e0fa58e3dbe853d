"""Starts client processes quickly: each is forked from one that has imported torch already.

Importing torch takes two thirds of a client's life in these tests, and transformers wants torch's
compiler, too. What is forked has imported those, and a few libraries below the clients that read no
setting when they are imported; neither `kernels` nor huggingface_hub nor transformers, nor any part
of kgate but its start-up hook, nor what that needs.
"""

from __future__ import annotations

import atexit
import json
import os
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
import torch._dynamo, torch.distributed.tensor
import httpx2, packaging.version, yaml

def live(order):
    os.environ.clear()
    os.environ.update(order["environment"])
    os.chdir(order["folder"])
    import tempfile
    tempfile.tempdir = None  # what the parent found out need not hold here
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

unexpected = sorted({"cryptography", "huggingface_hub", "kernels",
                     "kgate_client.hook", "transformers"} & set(sys.modules))
print(json.dumps(unexpected), flush=True)
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        live(json.loads(line))
    print(json.dumps(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])), flush=True)
"""

_running: dict[bool, subprocess.Popen[str]] = {}


def run_forked(
    program: str, environment: Mapping[str, str], folder: Path, *, hooked: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run a program in a new process that has only torch loaded; returns how it ended.

    It comes from a parent with the shim's start-up hook, or from one that never had it.
    """
    nursery = _nursery(hooked=hooked)
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


def _nursery(*, hooked: bool) -> subprocess.Popen[str]:
    if hooked not in _running:
        process = subprocess.Popen(
            [sys.executable, "-c", _NURSERY],
            env=dict(os.environ) | ({} if hooked else {"KGATE_DISABLE": "1"}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert json.loads(process.stdout.readline()) == []
        if not _running:
            atexit.register(_close)
        _running[hooked] = process
    return _running[hooked]


def _close() -> None:
    while _running:
        _running.popitem()[1].communicate(timeout=TIMEOUT)
