"""Mirrors and their content for measurements: one kernel of many small files and one large one."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from tests.mirrorkit import VARIANT, MirrorKit, make_mirror

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

KERNEL = "acme/relu"
LARGE = "big.so"


def content(large: int, small: int = 20) -> dict[str, bytes]:
    """Return files: `small` ones of 2 to 50 kB and one of `large` bytes; always the same."""
    made = random.Random(20261121)  # the same bytes each time
    block = made.randbytes(1024 * 1024)
    files = {f"file{number:02}.py": made.randbytes(made.randint(2_000, 50_000))
             for number in range(small)}  # fmt: skip
    files["metadata.json"] = b'{"name":"relu","id":"relu","version":1,"license":"Apache-2.0"}'
    files[LARGE] = (block * (large // len(block) + 1))[:large]
    return files


def publish(root: Path, files: Mapping[str, bytes]) -> MirrorKit:
    """Make a mirror with one published kernel of these files."""
    kit = make_mirror(root)
    kit.publish(kit.variant(files))
    return kit


def place(name: str) -> str:
    """Return a file's address on the mirror."""
    return f"/kernels/{KERNEL}/resolve/v1/build/{VARIANT}/{name}"


def lay_out(root: Path, files: Mapping[str, bytes]) -> Path:
    """Write the files where plain nginx serves them under the same addresses."""
    for name, data in files.items():
        path = root / place(name).lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root
