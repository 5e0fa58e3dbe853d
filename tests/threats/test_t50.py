"""T50: a parser exploit reaches for keys, the database, the network and other processes.

The exploit here is real code that runs in the real child process in the place of a parser, after
the process has locked itself. It gets nothing.
"""

from __future__ import annotations

import os
import socket
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kgate_scanner import isolate
from kgate_scanner.isolate import ParserProcess, ScanLimits, open_descriptor

if TYPE_CHECKING:
    from collections.abc import Iterator

# The worker as it is, but for one parser that has been taken over.
TAKEN_OVER = """
import sys; sys.path[:] = sys.argv[5:]
import _socket, os, signal, sqlite3, ctypes, subprocess
from kgate_scanner import worker
from kgate_scanner.isolate import Inspected

def tried(act):
    try:
        return f"got {act()!r}"
    except BaseException as exc:
        return type(exc).__name__

def fork():
    child = os.fork()
    if child == 0:
        os._exit(0)
    return child

def exploit(data, path, *, system):
    facts = {
        "read the key": tried(lambda: open(%(key)r).read()),
        "read the database": tried(lambda: sqlite3.connect(%(database)r).execute(
            "select secret from keys").fetchall()),
        "write a file": tried(lambda: open(%(target)r, "w").write("x")),
        "list a directory": tried(lambda: os.listdir(%(place)r)),
        "read the parent's environment": tried(lambda: open(%(environ)r, "rb").read()),
        "connect": tried(lambda: _socket.socket().connect(("127.0.0.1", %(port)d))),
        "connect to an agent": tried(lambda: _socket.socket(_socket.AF_UNIX).connect(%(unix)r)),
        "start a program": tried(lambda: os.execv("/bin/true", ["true"])),
        "fork": tried(fork),
        "kill the parent": tried(lambda: os.kill(%(pid)d, 9)),
        "trace the parent": tried(lambda: PTRACE(16, %(pid)d, 0, 0) == 0 or 1 / 0),
        "delete": tried(lambda: os.unlink(%(key)r)),
        "see the environment": dict(os.environ),
        "find the secret among descriptors": [
            number for number in range(64)
            if tried(lambda: os.pread(number, 100, 0)).startswith("got b'top secret")
        ],
    }
    return Inspected(facts)

PTRACE = ctypes.CDLL(None).ptrace
worker.inspect_file = exploit
worker.main(*map(int, sys.argv[1:5]))
"""
REFUSED = {"PermissionError", "OperationalError", "ZeroDivisionError", "OSError"}


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)  # noqa: FBT003  # the standard library's signature
        yield server


def test_a_parser_that_was_taken_over_reaches_nothing(
    tmp_path: Path, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, database, unix = tmp_path / "key.pem", tmp_path / "kgate.db", tmp_path / "agent.sock"
    key.write_text("top secret")
    with sqlite3.connect(database) as opened:
        opened.execute("create table keys (secret text)")
        opened.execute("insert into keys values ('top secret')")
    monkeypatch.setenv("KGATE_TEST_SECRET", "top secret")
    held = os.open(key, os.O_RDONLY)
    os.set_inheritable(held, True)  # noqa: FBT003  # the standard library's signature
    agent = socket.socket(socket.AF_UNIX)
    agent.bind(str(unix))
    agent.listen()
    places = {
        "key": str(key),
        "database": str(database),
        "target": str(tmp_path / "written"),
        "place": str(tmp_path),
        "environ": f"/proc/{os.getpid()}/environ",
        "port": listener.getsockname()[1],
        "unix": str(unix),
        "pid": os.getpid(),
    }
    monkeypatch.setattr(isolate, "_BOOT", TAKEN_OVER % places)
    content = open_descriptor(memoryview(b"x = 1\n"))
    try:
        with ParserProcess(ScanLimits(), 100) as process:
            found = process.inspect(content, "a.py")
    finally:
        os.close(content)
        os.close(held)
        agent.close()
    facts = dict(found.facts)
    assert found.findings == ()
    # Python itself sets this one where the locale is not known.
    of_allocation = {"MALLOC_MMAP_THRESHOLD_", "MALLOC_ARENA_MAX"}
    assert set(facts.pop("see the environment")) <= {"LC_CTYPE", *of_allocation}
    assert facts.pop("find the secret among descriptors") == []
    assert len(facts) == 12
    assert {act: got for act, got in facts.items() if got not in REFUSED} == {}
    assert key.read_text() == "top secret"
    assert not (tmp_path / "written").exists()
    with pytest.raises(BlockingIOError):
        listener.accept()


def test_the_child_locks_itself_before_it_sees_a_file() -> None:
    content = open_descriptor(memoryview(b"x = 1\n"))
    try:
        with ParserProcess(ScanLimits(), 100) as process:
            process.inspect(content, "a.py")
            status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
            inherited = list(Path(f"/proc/{process.pid}/fd").iterdir())
    finally:
        os.close(content)
    lines = dict(line.split(":\t", 1) for line in status.splitlines())
    assert lines["Seccomp"].strip() == "2"
    assert lines["NoNewPrivs"].strip() == "1"
    assert len(inherited) <= 4
