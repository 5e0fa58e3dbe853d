"""Small kernels for `kgate qualify`: right ones, wrong ones in every way, and the judge.

Each is pure Python, a variant directory of its own; `try_kernel` runs the real processes.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from kgate_client.qualify.casefile import CaseFile
from kgate_client.qualify.run import Subject, Wanted, qualify

if TYPE_CHECKING:
    from pathlib import Path

VARIANT: Final = "torch-cpu"
RIGHT: Final = """
import torch

def add(out, x, y):
    torch.add(x, y, out=out)
    return out
"""
RETURNING: Final = "def add(x, y):\n    return x + y\n"
METADATA: Final = {
    "id": "_tried_kernel_0001",
    "name": "tried",
    "version": 1,
    "license": "Apache-2.0",
    "python-depends": [],
    "backend": {"type": "cpu"},
}


def write_kernel(folder: Path, source: str) -> Path:
    """Write a variant directory whose module is this source."""
    variant = folder / "build" / VARIANT
    variant.mkdir(parents=True)
    (variant / "__init__.py").write_text(source, encoding="utf-8")
    (variant / "metadata.json").write_text(json.dumps(METADATA), encoding="utf-8")
    return variant


def cases(*, returning: bool = False, **changes: Any) -> CaseFile:
    """Return a case file for a sum: two shapes, one dtype unless told otherwise."""
    case = {
        "function": "add",
        "reference": "add",
        "call": ["x", "y"] if returning else ["out", "x", "y"],
        "shapes": [{"x": [8], "y": [8], "out": [8]}, {"x": [3, 5], "y": [3, 5], "out": [3, 5]}],
        "dtypes": ["float32"],
        "seeds": [0],
    }
    document = {
        "schema": "kgate.dev/qualification-cases/v1",
        "name": "sum",
        "cases": [case | changes],
    }
    return CaseFile.parse(json.dumps(document).encode())


def try_kernel(
    folder: Path,
    source: str,
    file: CaseFile | None = None,
    *,
    speed: bool = False,
    timeout: float = 60.0,
    environ: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Try a kernel and return the result document."""
    wanted = Wanted(file or cases(), "cpu", "lab@example.org", speed, timeout)
    subject = Subject(write_kernel(folder, source), VARIANT)
    return qualify(subject, wanted, environ or dict(os.environ), lambda: datetime.now(UTC))


def reasons(result: dict[str, Any]) -> str:
    """Return everything that was found wrong, in one text."""
    return " ".join([result["problem"], *(item.get("why", "") for item in result["tried"])])
