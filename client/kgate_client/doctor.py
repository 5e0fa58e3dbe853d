"""Examines a host or a pod: what is set up, what is not, and what would load here.

`examine` looks and reports; it changes nothing, imports neither torch nor `kernels` and opens a
connection to the configured endpoint only. Rendering and exit codes are the caller's business.
"""

from __future__ import annotations

import importlib.metadata
import re
import site
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kgate_client import autoload, hook
from kgate_client.answer import Cleared
from kgate_client.asked import Asked
from kgate_client.hubcache import cached_variants, hub_folder
from kgate_client.process import build
from kgate_core.clock import write_time
from kgate_core.errors import KgateError
from kgate_core.trust import Mode
from kgate_core.tuf import Root

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kgate_client.config import PodConfig
    from kgate_client.pod import Pod

PTH: Final = "kgate-autoload.pth"
MAX_KERNELS: Final = 64  # variants in the Hub cache that are looked at
_PACKAGES: Final = ("kgate", "kernels", "huggingface-hub", "torch", "transformers", "cryptography")
_TELEMETRY: Final = ("HF_HUB_DISABLE_TELEMETRY", "DISABLE_TELEMETRY", "DO_NOT_TRACK")
_TRUE: Final = {"1", "true", "yes", "on"}


class Status(StrEnum):
    """How one check came out."""

    OK = "ok"
    NOTE = "note"
    """Worth knowing; nothing is broken by it."""
    PROBLEM = "problem"
    """Kernels do not load, or not as somebody may expect."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    status: Status
    detail: str
    hint: str = ""
    """What a person can do next; empty where nothing needs doing."""


@dataclass(frozen=True, slots=True)
class Report:
    """All checks of one examination, in the order in which they matter."""

    SCHEMA = "kgate.dev/doctor/v1"

    checks: tuple[Check, ...]
    kernels: tuple[dict[str, str], ...]
    """What would happen to each kernel in the Hub cache."""

    @property
    def healthy(self) -> bool:
        """True if no check found a problem."""
        return all(check.status is not Status.PROBLEM for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        """Return the report as a JSON object."""
        return {
            "schema": self.SCHEMA,
            "ok": self.healthy,
            "checks": [
                {
                    "name": check.name,
                    "status": str(check.status),
                    "detail": check.detail,
                    "hint": check.hint,
                }
                for check in self.checks
            ],
            "kernels": list(self.kernels),
        }

    def lines(self) -> Iterator[str]:
        """Yield the report for people."""
        signs = {Status.OK: "✓", Status.NOTE: "·", Status.PROBLEM: "✗"}
        for check in self.checks:
            yield f"{signs[check.status]} {check.name:<12} {check.detail}"
            if check.hint:
                yield f"{'':<15}→ {check.hint}"
        for kernel in self.kernels:
            why = f" ({kernel['reason']}: {kernel['message']})" if kernel["reason"] else ""
            yield f"  {kernel['kernel']} {kernel['variant']}: {kernel['outcome']}{why}"


def examine(environ: Mapping[str, str]) -> Report:
    """Look at everything that decides whether a kernel loads in this environment."""
    pod = build(environ)
    versions = {name: _version(name) for name in _PACKAGES}
    checks = [
        _check_versions(versions),
        _check_client(versions),
        _check_hook(pod.config),
        _check_root(pod, needed=versions["kernels"] is not None),
        _check_trust(pod),
        _check_mode(pod),
        _check_endpoint(pod),
        _check_cache(pod),
        _check_crypto(),
        *_check_environment(environ),
    ]
    return Report(tuple(check for check in checks if check is not None), _kernels(pod, environ))


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _check_versions(versions: Mapping[str, str | None]) -> Check:
    found = [f"{name} {version}" for name, version in versions.items() if version is not None]
    return Check("versions", Status.OK, ", ".join([f"Python {sys.version.split()[0]}", *found]))


def _check_client(versions: Mapping[str, str | None]) -> Check:
    version = versions["kernels"]
    known = ", ".join(hook.supported_versions())
    if version is None:
        return Check("client", Status.NOTE, "kernels is not installed: nothing loads kernels here")
    if version.rpartition(".")[0] in hook.supported_versions():
        return Check("client", Status.OK, f"kernels {version} is supported")
    return Check(
        "client",
        Status.PROBLEM,
        f"kernels {version} is not a version that this kgate knows ({known})",
        "every load falls back: install a supported version, or a newer kgate",
    )


def _check_hook(config: PodConfig) -> Check:
    active = autoload.active()
    files = [str(Path(folder) / PTH) for folder in _site_folders() if (Path(folder) / PTH).exists()]
    if config.disable and config.trust_root is None:
        return Check("hook", Status.PROBLEM, "KGATE_DISABLE is set: kernels load unchecked")
    if files and active:
        return Check("hook", Status.OK, f"active, started by {files[0]}")
    if active:
        return Check(
            "hook",
            Status.PROBLEM,
            f"active here, but no {PTH} starts it in other processes",
            "install kgate into this environment with pip, not with --target or PYTHONPATH",
        )
    return Check("hook", Status.PROBLEM, "not active", "do not run Python with -S or -I -S")


def _site_folders() -> tuple[str, ...]:
    folders = [*site.getsitepackages(), site.getusersitepackages()]
    return tuple(dict.fromkeys([*folders, *(path for path in sys.path if path)]))


def _check_root(pod: Pod, *, needed: bool) -> Check:
    path = pod.config.trust_root
    if path is None:
        if pod.mode() is Mode.OBSERVE:
            said = "none is pinned: mode observe loads every kernel unchecked"
            return Check("trust root", Status.NOTE, said, "set KGATE_TRUST_ROOT before you enforce")
        status = Status.PROBLEM if needed else Status.NOTE
        return Check(
            "trust root",
            status,
            "none is pinned: every kernel falls back",
            "set KGATE_TRUST_ROOT to the root.json of your mirror, or KGATE_MODE=observe",
        )
    if not pod.keeper.pinned:
        return Check(
            "trust root",
            Status.PROBLEM,
            f"{path} cannot be read",
            "check the path and the mount of KGATE_TRUST_ROOT",
        )
    if problem := _root_problem(path):
        return Check(
            "trust root",
            Status.PROBLEM,
            f"{path} is no trust root: {problem}",
            "name the root.json that your mirror's operator gave you (trust/root.json of the site)",
        )
    return Check("trust root", Status.OK, f"pinned from {path}")


def _root_problem(path: Path) -> str:
    try:
        Root.pinned(path.read_bytes())
    except (KgateError, OSError) as exc:
        return str(exc)
    return ""


def _check_trust(pod: Pod) -> Check | None:
    path = pod.config.trust_root
    if path is None or not pod.keeper.pinned or _root_problem(path):
        return None  # said by the check before
    now = datetime.now(UTC)
    try:
        trusted = pod.keeper.current(now)
    except KgateError as exc:
        hint = exc.hint or "start the mirror, or fill the cache with `kgate warm`"
        return Check("trust", Status.PROBLEM, exc.message, hint)
    versions = trusted.versions
    said = (
        f"site {trusted.site}, root {versions.root}, targets {versions.targets},"
        f" issued {write_time(trusted.issued)}, expires {write_time(trusted.expires)}"
    )
    lane = trusted.lanes.get(pod.config.lane)
    if lane is None:
        known = ", ".join(sorted(trusted.lanes))
        return Check(
            "trust", Status.PROBLEM, f"no lane {pod.config.lane!r}", f"KGATE_LANE: one of {known}"
        )
    age = trusted.age(now)
    if age > lane.hard_staleness:
        return Check(
            "trust", Status.PROBLEM, f"too old: {said}", "the mirror must be reached to load again"
        )
    if age > lane.soft_staleness:
        return Check("trust", Status.NOTE, f"not fresh: {said} ({pod.keeper.problem or 'offline'})")
    return Check("trust", Status.OK, said)


def _check_mode(pod: Pod) -> Check:
    mode = pod.mode()
    wanted = pod.config.mode
    said = f"{mode} in lane {pod.config.lane}"
    if pod.config.problems:
        return Check("mode", Status.NOTE, f"{said}; {'; '.join(pod.config.problems)}")
    if wanted is not None and wanted is not mode:
        why = "is weaker than what is signed" if pod.keeper.pinned else "needs a trust root"
        return Check("mode", Status.NOTE, f"{said}; KGATE_MODE={wanted} {why}")
    return Check("mode", Status.OK, said)


def _check_endpoint(pod: Pod) -> Check:
    endpoint = pod.config.endpoint
    if pod.config.offline:
        return Check("endpoint", Status.OK, "offline: no socket is opened")
    if endpoint is None or pod.channel is None:
        return Check(
            "endpoint",
            Status.NOTE,
            "HF_ENDPOINT is not set: the public Hub is asked, and it knows no attestations",
            "export HF_ENDPOINT=https://<your mirror>",
        )
    if problem := pod.channel.probe():
        return Check("endpoint", Status.PROBLEM, f"{endpoint}: {problem}")
    try:
        pod.channel.trust("timestamp.json")
    except KgateError as exc:
        return Check(
            "endpoint",
            Status.PROBLEM,
            f"{endpoint} answers, but not as a kgate mirror ({exc.message})",
        )
    return Check("endpoint", Status.OK, f"{endpoint} answers")


def _check_cache(pod: Pod) -> Check:
    cache = pod.config.cache
    if cache is None:
        return Check("cache", Status.NOTE, "none: verified copies live and die with each process")
    if pod.sealed.shared is not None:
        return Check(
            "cache", Status.NOTE, f"{cache} is read-only or shared: new copies are private"
        )
    copies = len(list(pod.sealed.root.glob("*"))) if pod.sealed.root.is_dir() else 0
    return Check("cache", Status.OK, f"{cache}, {copies} verified copies")


def _check_crypto() -> Check:
    from cryptography.hazmat.backends.openssl import backend

    fips = Path("/proc/sys/crypto/fips_enabled")
    host = "on" if fips.exists() and fips.read_text().strip() == "1" else "off"
    return Check("crypto", Status.OK, f"{backend.openssl_version_text()}, host FIPS mode {host}")


def _check_environment(environ: Mapping[str, str]) -> Iterator[Check]:
    silent = [name for name in _TELEMETRY if environ.get(name, "").lower() in _TRUE]
    if silent:
        yield Check(
            "telemetry",
            Status.NOTE,
            f"{silent[0]} is set: stock kernels 0.17 then sends a header that HTTP refuses",
            "kgate repairs it in its processes; elsewhere take the variable away",
        )
    for name in ("LOCAL_KERNELS", "LD_PRELOAD", "LD_LIBRARY_PATH"):
        if environ.get(name):
            yield Check("environment", Status.NOTE, f"{name}={environ[name]}")


def _kernels(pod: Pod, environ: Mapping[str, str]) -> tuple[dict[str, str], ...]:
    hub = hub_folder(environ, pod.config)
    if hub is None:
        return ()
    found = []
    for variant in islice(cached_variants(hub), MAX_KERNELS):
        answer = pod.gate.check(Asked(), variant, seal=False)
        cleared = isinstance(answer, Cleared)
        found.append(
            {
                "kernel": answer.trace.kernel or re.sub("^kernels--", "", variant.parts[-5]),
                "variant": variant.name,
                "manifest": answer.trace.manifest,
                "outcome": "loads" if cleared else "falls back",
                "reason": "" if isinstance(answer, Cleared) else answer.reason,
                "message": "" if isinstance(answer, Cleared) else answer.message,
            }
        )
    return tuple(found)
