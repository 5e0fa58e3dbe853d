"""Pods of the demo: each a real process with the stock client, its own cache and a report file.

A pod's environment is set from nothing, so that whatever the demo is started with has no say.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from kgate_core.errors import KgateError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

TIMEOUT: Final = 300  # seconds; importing torch on a loaded machine takes twenty


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run of the program showed."""

    kernels: tuple[str, ...]
    """Kernels that the stock client says it loaded."""
    difference: float
    """Largest difference to the plain PyTorch result."""
    report: dict[str, Any]
    """The shim's last report line; empty if it wrote none."""
    warnings: str
    """What the program printed on stderr."""

    @property
    def word(self) -> str:
        """`loaded` if a kernel ran, else `fallback`."""
        return "loaded" if self.kernels else "fallback"

    @property
    def reason(self) -> str:
        """Why it fell back, as the shim reported it."""
        return str(self.report.get("reason", ""))


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod: a home for its caches, and what its environment says."""

    home: Path
    program: Path
    endpoint: str
    trust_root: Path
    extra: Mapping[str, str] = field(default_factory=dict)

    @property
    def hub_cache(self) -> Path:
        """Where the stock client keeps what it downloaded."""
        return self.home / "hub"

    def run(self, repo: str, **more: str) -> Outcome:
        """Run the program once; raises KgateError if it crashed, which no kernel may cause."""
        self.home.mkdir(parents=True, exist_ok=True)
        report = self.home / "report.jsonl"
        before = len(_lines(report))
        environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(self.home),
            "HF_HOME": str(self.home),
            "HF_ENDPOINT": self.endpoint,
            "KGATE_TRUST_ROOT": str(self.trust_root),
            "KGATE_REPORT": str(report),
            "NO_PROXY": "127.0.0.1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            **self.extra,
            **more,
        }
        done = subprocess.run(  # noqa: S603  # our own interpreter and our own program
            [sys.executable, str(self.program), repo],
            env=environment,
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        if done.returncode != 0:
            raise KgateError(
                f"the demo's program failed with exit code {done.returncode}",
                hint=done.stderr.strip()[-2000:],
            )
        said = json.loads(done.stdout.strip().splitlines()[-1])
        fresh = _lines(report)[before:]
        return Outcome(
            tuple(said["kernels"]),
            float(said["difference"]),
            json.loads(fresh[-1]) if fresh else {},
            done.stderr,
        )


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []
