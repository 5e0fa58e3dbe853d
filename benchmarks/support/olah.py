"""olah from PyPI, in an environment of its own, mirroring another endpoint."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

from tests.mirrorkit import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

VERSION = "0.5.4"
HOME = Path(__file__).parents[2] / ".cache" / f"olah-{VERSION}"


@contextlib.contextmanager
def mirror(folder: Path, upstream: str) -> Iterator[int]:
    """Run olah over an upstream; yields its port."""
    program = _install()
    port = free_port()
    folder.mkdir(parents=True)
    host = upstream.removeprefix("http://")
    config = folder / "olah.toml"
    config.write_text(
        f"""[basic]
host = ["127.0.0.1"]
port = {port}
ssl-key = ""
ssl-cert = ""
repos-path = "{folder}/repos"
hf-scheme = "http"
hf-netloc = "{host}"
hf-lfs-netloc = "{host}"
mirror-scheme = "http"
mirror-netloc = "127.0.0.1:{port}"
mirror-lfs-netloc = "127.0.0.1:{port}"
mirrors-path = []

[accessibility]
offline = false

[[accessibility.proxy]]
repo = "*"
allow = true

[[accessibility.cache]]
repo = "*"
allow = true
""",
        encoding="utf-8",
    )
    with (folder / "said").open("wb") as said:
        process = subprocess.Popen(
            [program, "-c", str(config)], stdout=said, stderr=said, cwd=folder
        )
    try:
        for _ in range(200):
            if process.poll() is not None:
                raise AssertionError((folder / "said").read_text(errors="replace")[-2000:])
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=1).close()
                break
            except urllib.error.HTTPError:
                break
            except OSError:
                time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _install() -> str:
    program = HOME / "bin" / "olah-cli"
    if not program.exists():
        subprocess.run([sys.executable, "-m", "venv", str(HOME)], check=True)
        pip = [str(HOME / "bin" / "python"), "-m", "pip", "install", "-q", f"olah=={VERSION}"]
        subprocess.run(pip, check=True, stdout=sys.stderr)
    return str(program)
