"""Says what the gate decided: one JSON line per decision, one sentence per kernel.

Both are best effort: a full disk or a closed stderr never fails a load. No token, environment or
file content is written, only names, digests, reasons, times and facts about the host.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

from kgate_core.clock import write_time

if TYPE_CHECKING:
    from datetime import datetime

    from kgate_client.answer import Trace
    from kgate_client.post import Poster

SCHEMA: Final = "kgate.dev/load/v1"
_NVIDIA: Final = Path("/proc/driver/nvidia/version")
_GPUS: Final = Path("/proc/driver/nvidia/gpus")
_MAX_FACT: Final = 256  # characters


class Reporter:
    """Writes decisions to a file and warnings to a stream."""

    def __init__(
        self,
        path: Path | None,
        *,
        warn: bool,
        endpoint: str | None,
        stream: TextIO | None = None,
        poster: Poster | None = None,
    ) -> None:
        self._path = path
        self._poster = poster
        self._warn = warn
        self._endpoint = endpoint
        self._stream = stream
        self._lock = threading.Lock()
        self._warned: set[str] = set()
        self.counts: dict[str, int] = {}
        """Decisions by outcome, since the process began."""

    def renew_lock(self) -> None:
        """Start with a free lock, after a fork."""
        self._lock = threading.Lock()
        if self._poster is not None:
            self._poster.renew_lock()

    def decision(
        self,
        trace: Trace,
        *,
        now: datetime,
        mode: str,
        outcome: str,
        reason: str = "",
        message: str = "",
        problem: str = "",
        log: str = "",
    ) -> None:
        """Count and write one decision.

        `outcome` is loaded, kept, fallback, raised, warned, observed or import-error.
        """
        with self._lock:
            self.counts[outcome] = self.counts.get(outcome, 0) + 1
        if self._path is None and self._poster is None:
            return
        record: dict[str, Any] = {
            "schema": SCHEMA,
            "time": write_time(now),
            "outcome": outcome,
            "asked": trace.asked,
            "repo": trace.repo,
            "revision": trace.revision,
            "variant": trace.variant,
            "manifest": trace.manifest,
            "path": trace.path,
            "mode": mode,
            "verdict": _verdict(trace),
            "reason": reason,
            "message": message,
            "fallback": outcome == "fallback",
            "ignored_bytecode": list(trace.ignored),
            "milliseconds": trace.timings,
            "trust": _trust(trace, problem, log),
            "host": host_facts(),
        }
        self._append(record)

    def warn(self, key: str, text: str) -> None:
        """Write one sentence per `key` to stderr, unless warnings are off."""
        with self._lock:
            if not self._warn or key in self._warned:
                return
            self._warned.add(key)
        with contextlib.suppress(OSError, ValueError):
            print(text, file=self._stream or sys.stderr, flush=True)

    def refused(self, kernel: str, reason: str, message: str, *, consequence: str) -> None:
        """Warn that a kernel was not loaded, in the words that the runbook explains."""
        details = f"details: {self._endpoint}/k/{kernel.partition('@')[0]} · "
        if self._endpoint is None or "/" not in kernel or kernel.startswith("/"):
            details = ""
        self.warn(
            kernel,
            f"kgate: {shorten(kernel)} was not loaded ({reason}: {message}). {consequence}\n"
            f"       {details}silence: KGATE_WARN=0",
        )

    def _append(self, record: dict[str, Any]) -> None:
        line = json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n"
        if self._poster is not None:
            self._poster.put(line.rstrip("\n").encode("utf-8", "replace"))
        with contextlib.suppress(OSError):
            if self._path is None:
                return
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # One write in append mode: lines of several processes do not mix.
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            handle = os.open(self._path, flags, 0o644)
            try:
                os.write(handle, line.encode("utf-8", "replace"))
            finally:
                os.close(handle)


def shorten(kernel: str) -> str:
    """Return `org/name@5b1c…9e0d` for a kernel named with its commit."""
    name, at, revision = kernel.rpartition("@")
    is_commit = len(revision) == 40 and not set(revision) - set("0123456789abcdef")  # noqa: PLR2004
    return f"{name}{at}{revision[:4]}…{revision[-4:]}" if is_commit else kernel


def torch_version() -> str:
    """Return the version of the torch that is loaded, nothing without one."""
    return str(getattr(sys.modules.get("torch"), "__version__", ""))


def host_facts() -> dict[str, str]:
    """Return what ran where; looks only at what is loaded already and starts no driver."""
    facts = {"python": sys.version.partition(" ")[0], "machine": os.uname().machine}
    facts["pid"] = str(os.getpid())
    for name in ("torch", "kernels"):
        if version := getattr(sys.modules.get(name), "__version__", None):
            facts[name] = str(version)
    cuda = getattr(getattr(sys.modules.get("torch"), "version", None), "cuda", None)
    if cuda:
        facts["cuda"] = str(cuda)
    with contextlib.suppress(OSError), _NVIDIA.open(encoding="utf-8") as stream:
        facts["driver"] = stream.readline().strip()[:_MAX_FACT]
    with contextlib.suppress(OSError):
        models = sorted(_model(path) for path in _GPUS.glob("*/information"))
        if models:
            facts["gpus"] = ", ".join(models)[:_MAX_FACT]
    return facts


def _model(information: Path) -> str:
    """Return what the driver calls a GPU: the line `Model:` of its information file."""
    lines = information.read_text(encoding="utf-8", errors="replace").splitlines()
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("Model:"))
    return next(models, "")


def _verdict(trace: Trace) -> dict[str, Any] | None:
    if trace.verdict is None:
        return None
    glass = getattr(trace.verdict, "break_glass", None)
    return {
        "kind": type(trace.verdict).__name__.lower(),
        "break_glass": None
        if glass is None
        else {
            "until": write_time(glass.until),
            "reason": glass.reason,
            "requested_by": glass.requested_by,
            "overrules": list(glass.overrules),
        },
        "steps": [
            {"number": step.number, "name": step.name, "ok": step.ok, "detail": step.detail}
            for step in trace.verdict.steps
        ],
    }


def _trust(trace: Trace, problem: str, log: str) -> dict[str, Any]:
    if trace.trusted is None:
        return {"problem": problem}
    versions = trace.trusted.versions
    return {
        "root": versions.root,
        "timestamp": versions.timestamp,
        "snapshot": versions.snapshot,
        "targets": versions.targets,
        "issued": write_time(trace.trusted.issued),
        "log_head": trace.trusted.log_head,
        "log": log,
        "problem": problem,
    }
