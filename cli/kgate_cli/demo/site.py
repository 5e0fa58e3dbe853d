"""The demo's own site: an upstream folder, a mirror with keys and policy, a serving process."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from kgate_core.errors import KgateError
from kgate_mirror_server.app import Mirror
from kgate_mirror_server.ingest.sync import new_source, sync, update_lock
from kgate_mirror_server.settings.site import LOCK_NAME, load_config
from kgate_mirror_server.trust.files import replace_file
from kgate_mirror_server.trust.founding import Founding, found_site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime
    from pathlib import Path

    from kgate_mirror_server.ingest.sync import SyncResult

ADMITTED: Final = "kernels-community/gelu-and-mul"
UNPINNED: Final = "somebody/faster-gelu"
START_SECONDS: Final = 60.0  # until the serving process must answer


def lay_out_upstream(out: Path, built: Path) -> Path:
    """Copy the built kernel as the folder upstream, and again under a name that nobody pins."""
    upstream = out / "upstream"
    for repo in (ADMITTED, UNPINNED):
        shutil.copytree(built, upstream / repo, ignore=shutil.ignore_patterns("__pycache__"))
    return upstream


def make_site(out: Path, now: datetime) -> Path:
    """Found the site in `out` with one pin; return its configuration."""
    found_site(out, Founding(upstream="./upstream", site="https://kgate.demo"), now)
    config = out / "kgate.yaml"
    text = config.read_text(encoding="utf-8")
    pin = f"kernels:\n  - repo: {ADMITTED}\n    version: 1\n"
    config.write_text(text.replace("kernels: []\n", pin), encoding="utf-8")
    return config


def bring_in(config: Path, now: datetime, tell: Callable[[str], None]) -> SyncResult:
    """Lock and sync, exactly as the two commands do."""
    mirror = Mirror(load_config(config))
    try:
        source = new_source(mirror, lambda _count: None)
        lock = update_lock(mirror, None, source, upgrade=lambda _pin: False, tell=tell)
        replace_file(config.parent / LOCK_NAME, lock.to_bytes())
        return sync(mirror, lock, source, now, tell=tell)
    finally:
        mirror.close()


@contextmanager
def serving(config: Path) -> Iterator[str]:
    """Run `kgate serve` in its own process on a free port; yield its address."""
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    program = "import sys; from kgate_cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "serve", "--config", str(config), "--port", str(port)]
    with (config.parent / "serve.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=dict(os.environ))  # noqa: S603  # our own program
        try:
            _wait(url, process)
            yield url
        finally:
            process.terminate()
            process.wait(timeout=30)


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=2):  # noqa: S310  # our own loopback address
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise KgateError("`kgate serve` did not come up", hint="see serve.log in the demo's folder")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
