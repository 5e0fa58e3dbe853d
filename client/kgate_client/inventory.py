"""The runtime SBOM of this process or of another, put together from the environment.

`kgate_client.runtime_sbom()` for this process, `kgate doctor --runtime-sbom PID` for any other,
`KGATE_RUNTIME_SBOM=<folder>` for each process that ends after it had imported torch.
"""

from __future__ import annotations

import atexit
import json
import os
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kgate_client import process
from kgate_client.locks import read_lock
from kgate_client.report import host_facts
from kgate_client.runtime import describe, mapped_code, running_kernels, sbom
from kgate_core.errors import KgateError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kgate_client.locks import HeldLock
    from kgate_client.pod import Pod


def runtime_sbom() -> dict[str, Any]:
    """Return what this process has mapped and loaded (CycloneDX 1.6), with drift to the lock."""
    pod = process.current()
    mapped = tuple(mapped_code())
    held, lane = _lock(pod), pod.config.lane
    kernels = {item.manifest: item for item in running_kernels(mapped, pod.finder, held, lane)}
    for cleared in pod.loaded():
        kernel, digest = cleared.verdict.vsa.kernel, cleared.manifest.digest
        identity = (str(kernel.repo), str(kernel.revision), kernel.variant)
        kernels[digest] = describe(digest, pod.finder, held, lane, identity=identity)
    return sbom(mapped, tuple(kernels.values()), now=datetime.now(UTC), facts=host_facts())


def sbom_of(environ: Mapping[str, str], pid: int) -> dict[str, Any]:
    """Return what another process has mapped; raises InvalidInput if it cannot be looked into."""
    pod = process.build(environ)
    mapped = tuple(mapped_code(pid))
    kernels = running_kernels(mapped, pod.finder, _lock(pod), pod.config.lane)
    return sbom(mapped, kernels, now=datetime.now(UTC), facts={"pid": str(pid)})


def write_at_exit(folder: str) -> None:
    """Write this process's SBOM into a folder when it ends; no failure of it is an error."""
    atexit.register(_write, folder, os.getpid())


def _write(folder: str, owner: int) -> None:
    if os.getpid() != owner:
        return  # a forked child says what it has by its own registration, or not at all
    with suppress(Exception):
        path = Path(folder) / f"{os.getpid()}.cdx.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(runtime_sbom(), ensure_ascii=False, indent=1), encoding="utf-8")


def _lock(pod: Pod) -> HeldLock | None:
    try:
        return read_lock(pod.config.lock, pod.config.canary)
    except KgateError:
        return None
