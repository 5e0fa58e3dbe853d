"""What this machine is: processor, GPU, driver, versions; as it stands in a result.

Called in the judge, where torch may be imported. Names are reported, serial numbers are not.
"""

from __future__ import annotations

import contextlib
import importlib
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from kgate_client.report import host_facts
from kgate_core.errors import InvalidInput

_CPU_INFO: Final = Path("/proc/cpuinfo")
_NAMED: Final = ("kgate", "kernels", "triton")


def facts_of(device: str) -> dict[str, str]:
    """Return the facts; raises InvalidInput if there is no such device."""
    torch: Any = importlib.import_module("torch")
    facts = host_facts()
    del facts["pid"]
    facts["cpu"] = _processor()
    for name in _NAMED:
        with contextlib.suppress(PackageNotFoundError):
            facts[name] = version(name)
    if device == "cpu":
        return facts
    if not torch.cuda.is_available():
        raise InvalidInput(
            f"torch finds no device {device} here", hint="say --device cpu, or run it where one is"
        )
    index = torch.device(device).index or 0
    major, minor = torch.cuda.get_device_capability(index)
    facts["gpu"] = str(torch.cuda.get_device_name(index))
    facts["capability"] = f"{major}.{minor}"
    return facts


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in _CPU_INFO.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
