"""Pinned wheels for tests, downloaded once into the user's cache and shared between tests.

A wheel that is there is checked and reused; a new one appears under its name only when complete.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kgate_core.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Mapping

_CHUNK: Final = 1 << 20  # bytes
_TIMEOUT: Final = 1800  # seconds; the largest wheel has half a gigabyte


def cache_folder(environ: Mapping[str, str]) -> Path:
    """Return where wheels are kept."""
    base = environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "kgate" / "wheels"


def wheel(requirement: str, *, python: str = "3.11") -> Path:
    """Return the wheel of `name==version` for x86-64 Linux, downloading it if it is not there."""
    folder = cache_folder(os.environ)
    folder.mkdir(parents=True, exist_ok=True)
    name, _, version = requirement.partition("==")
    pattern = f"{name.replace('-', '_')}-{version}-*.whl"
    for found in sorted(folder.glob(pattern)):
        return found
    with tempfile.TemporaryDirectory(prefix=".download.", dir=folder) as partial:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--disable-pip-version-check", "--only-binary=:all:", "--dest", partial]
        command += ["--python-version", python, "--platform", "manylinux_2_24_x86_64"]
        command += ["--platform", "manylinux2014_x86_64", requirement]
        subprocess.run(command, check=True, timeout=_TIMEOUT)
        (whole,) = Path(partial).glob("*.whl")
        return whole.rename(folder / whole.name)


def member(archive: Path, name: str, expected: str, target: Path) -> Path:
    """Unpack one member of a wheel into `target`, checking its sha256."""
    with zipfile.ZipFile(archive) as opened:
        unpacked = Path(opened.extract(name, target))
    with unpacked.open("rb") as file:
        found = Digest.of_chunks(iter(lambda: file.read(_CHUNK), b""))
    assert found.hex == expected, f"{name} of {archive.name} is not the file of the corpus"
    return unpacked
