"""An audit hook that notices code run straight from a Hub cache, past every load point.

`importlib`, `torch.ops.load_library` and the like can run a downloaded kernel without `kernels`.
Where kernels are refused, so is that: nothing that went through the gate runs from a cache folder,
because the gate runs a private copy. It stops accidents, not somebody who controls the process
(PEP 578 says the same of every audit hook), and it looks at no other path.
"""

from __future__ import annotations

import os
import re
import sys
from typing import Final

from kgate_client.asked import Asked
from kgate_client.process import stops

_CACHED: Final = re.compile(r"kernels--([^/]+?)--([^/]+)/(?:snapshots|blobs)/")
_started: list[bool] = []


def start() -> None:
    """Install the audit hook once; it cannot be removed."""
    if not _started:
        _started.append(True)
        sys.addaudithook(audit)
        if folder := os.environ.get("KGATE_RUNTIME_SBOM"):
            from kgate_client.inventory import write_at_exit

            write_at_exit(folder)


def audit(event: str, arguments: tuple[object, ...]) -> None:
    """Raise KgateBlocked if an event is about to run a file of a kernel's cache folder."""
    # Called for everything that Python audits: what does not matter is gone after one comparison.
    if event == "exec":
        path = getattr(arguments[0], "co_filename", None)
    elif event == "import":
        path = arguments[1]  # set for extension modules only
    elif event == "ctypes.dlopen":
        path = arguments[0]
    else:
        return
    if isinstance(path, str) and "kernels--" in path:
        _refuse(path)


def _refuse(path: str) -> None:
    found = _CACHED.search(path)
    if found is None:
        return
    pod = stops()
    if pod is not None:
        kernel = f"{found[1]}/{found[2]}"
        message = f"{path} would run straight from the cache, unchecked"
        raise pod.blocked(kernel, "direct-load", message, asked=Asked(kernel))
