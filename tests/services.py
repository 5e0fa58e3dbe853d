"""Real servers that tests need: found on this machine, or installed from Debian when we are root.

Each runs on a port and in a folder of its own and is stopped by who started it.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.mirrorkit import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

_START_SECONDS = 60


def find_program(name: str, package: str, *places: str) -> str:
    """Return a program's path, installing its Debian package if it is missing and we may."""
    for _ in range(2):
        found = shutil.which(name)
        for pattern in places:
            matches = sorted(Path("/").glob(pattern.lstrip("/")))
            found = found or (str(matches[-1]) if matches else None)
        if found:
            return found
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            break
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update", "-qq"], ["install", "-y", "-qq", package]):
            subprocess.run(["apt-get", *command], check=True, env=environment, capture_output=True)
    raise AssertionError(f"{name} is needed: install the package {package}")


@contextlib.contextmanager
def postgresql() -> Iterator[str]:
    """Run a PostgreSQL server; yields the URL of its database `postgres`."""
    initdb = find_program("initdb", "postgresql", "/usr/lib/postgresql/*/bin/initdb")
    programs = Path(initdb).resolve().parent
    folder = Path(tempfile.mkdtemp(prefix="kgate-postgresql-"))
    data, port = folder / "data", free_port()
    become: list[str] = []
    if os.geteuid() == 0:  # the server refuses to run as root
        owner = pwd.getpwnam("postgres")
        os.chown(folder, owner.pw_uid, owner.pw_gid)
        become = ["runuser", "-u", "postgres", "--"]
    options = (
        f"-c listen_addresses=127.0.0.1 -c port={port} -c fsync=off"
        f" -c unix_socket_directories={folder}"
    )
    control = [*become, str(programs / "pg_ctl"), "-D", str(data), "-w", "-t", str(_START_SECONDS)]
    try:
        _run([*become, str(programs / "initdb"), "-D", str(data), "-U", "kgate", "-A", "trust"])
        _run([*control, "-l", str(folder / "log"), "-o", options, "start"])
        try:
            yield f"postgresql://kgate@127.0.0.1:{port}/postgres"
        finally:
            _run([*control, "-m", "immediate", "stop"])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(command: list[str]) -> None:
    # Without a pipe: the server inherits what its starter writes to and would keep it open.
    with tempfile.TemporaryFile() as said:
        done = subprocess.run(
            command, stdout=said, stderr=said, check=False, cwd="/", timeout=2 * _START_SECONDS
        )
        said.seek(0)
        assert done.returncode == 0, said.read().decode(errors="replace")
