"""A virtual environment as a pod has it: the wheel of this tree, cryptography, nothing else."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NEEDED = ("cryptography", "cffi", "pycparser")


@dataclass(frozen=True)
class PodEnvironment:
    """A base install and the wheel that it came from."""

    folder: Path
    wheel: Path

    @property
    def site(self) -> Path:
        """Its site-packages."""
        return next((self.folder / "lib").glob("python3.*")) / "site-packages"

    def run(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a program of this environment with next to no environment variables."""
        return subprocess.run(
            [str(self.folder / "bin" / command[0]), *command[1:]],
            env={"HOME": str(self.folder), "PATH": os.defpath, **variables},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


@pytest.fixture(scope="session")
def pod_environment(tmp_path_factory: pytest.TempPathFactory) -> PodEnvironment:
    folder = tmp_path_factory.mktemp("pod")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder / "dist")],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=120,
    )
    wheel = next((folder / "dist").glob("*.whl"))
    environment = PodEnvironment(folder / "venv", wheel)
    venv.create(environment.folder, with_pip=False)
    # What pip would fetch is taken from this environment: the test needs no registry.
    for name in NEEDED:
        distribution = importlib.metadata.distribution(name)
        for file in distribution.files or ():
            top = file.parts[0]
            target = environment.site / top
            if top != ".." and not target.exists():
                target.symlink_to(Path(str(distribution.locate_file(top))))
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "--python", str(environment.folder / "bin" / "python")),
            *("install", "--quiet", "--no-index", "--no-deps", str(wheel)),
        ],
        check=True,
        capture_output=True,
        timeout=120,
    )
    return environment
