"""Child programs that use the stock `kernels` client, as a user's process would.

Each starts from an empty environment: no token, no cache, no proxy, no shim.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

TIMEOUT = 120  # seconds


def run_ungated(
    program: str, home: Path, *, endpoint: str = "http://127.0.0.1:9", **variables: str
) -> Any:
    """Run the program without kgate's shim and return the JSON of its last printed line."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "HF_HOME": str(home / "hf"),
        "HF_ENDPOINT": endpoint,
        "NO_PROXY": "127.0.0.1",
        "OMP_NUM_THREADS": "2",
        "PYTHONDONTWRITEBYTECODE": "1",
        "KGATE_DISABLE": "1",
        **variables,
    }
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        cwd=home,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
