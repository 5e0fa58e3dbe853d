"""The `kgate` script: everything where the `cli` extra is installed, a pod's commands elsewhere.

Imports the standard library only until it knows which of the two it is.
"""

from __future__ import annotations

import importlib.util
import sys
from typing import Final

_NEEDED: Final = ("click", "rich", "yaml", "pydantic_settings", "sqlalchemy")


def main() -> int:
    """Run `kgate` with this process' arguments and return its exit code."""
    if all(importlib.util.find_spec(name) is not None for name in _NEEDED):
        from kgate_cli.main import main as full

        return full()
    from kgate_client.entry import run

    return run(sys.argv[1:])
