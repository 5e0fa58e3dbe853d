"""Tries one variant: makes a private copy, starts the judge, returns the result as a document.

This process holds whatever secrets its caller has and touches no tensor; the judge and the kernel
get an environment without them. The result is made here, after both have ended.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kgate_client.files import copy_files, walk
from kgate_client.loader import check_name
from kgate_core import strictjson
from kgate_core.clock import write_time
from kgate_core.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from kgate_client.qualify.casefile import CaseFile

SCHEMA: Final = "kgate.dev/qualification/v1"
TIMEOUT: Final = 60.0  # seconds that one batch may take
TOTAL: Final = 3600.0  # seconds that the whole may take
MAX_RESULT: Final = 16 * 1024**2  # bytes of what the judge says
_PASSED_ON: Final = (
    "PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "CUDA_HOME", "CUDA_VISIBLE_DEVICES",
    "NVIDIA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "OMP_NUM_THREADS",
)  # fmt: skip
"""What a kernel may know of the environment; everything else, tokens included, it may not."""


@dataclass(frozen=True, slots=True)
class Subject:
    """The variant to try."""

    folder: Path
    """Its files; copied before anything runs."""
    variant: str
    repo: str = ""
    revision: str = ""
    verified: bool = False
    """Whether a gate compared the files with signatures; False for a local folder."""
    links_into: Path | None = None
    """The folder that links among the files may point into, in a Hub cache."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """How to try it."""

    cases: CaseFile
    device: str
    submitter: str
    speed: bool = True
    timeout: float = TIMEOUT


def qualify(
    subject: Subject,
    wanted: Wanted,
    environ: Mapping[str, str],
    clock: Callable[[], datetime],
) -> dict[str, Any]:
    """Return the result; raises InvalidInput if the folder is no kernel or a case cannot be read.

    A kernel that crashes, hangs or cannot be loaded has a result: it did not pass.
    """
    with tempfile.TemporaryDirectory(prefix="kgate-qualify-") as name:
        place = Path(name)
        copy, scratch = place / "kernel", place / "scratch"
        copy.mkdir(mode=0o700)
        scratch.mkdir(mode=0o700)
        manifest = copy_files(walk(subject.folder, links_into=subject.links_into), copy)
        metadata = _metadata(copy)
        order = {
            "cases": wanted.cases.data.decode("utf-8"),
            "speed": wanted.speed,
            "seconds": wanted.timeout,
            "environment": _environment(environ, scratch),
            "worker": {
                "root": str(copy),
                "manifest": str(manifest.digest),
                "name": str(metadata["id"]),
                "package": str(metadata.get("name", "")).replace("-", "_"),
                "scratch": str(scratch),
                "device": wanted.device,
            },
        }
        said = _judged(order)
    tried, timed = said["tried"], said["timed"]
    equal = bool(tried) and all(item["equal"] for item in tried) and not said["problem"]
    host = said.get("host", {})
    speedup = said.get("speedupPpm")
    return {
        "schema": SCHEMA,
        "manifest": str(manifest.digest),
        "passed": equal,
        "finishedAt": write_time(clock()),
        "submitter": {"name": wanted.submitter},
        "kernel": {
            "repo": subject.repo,
            "revision": subject.revision,
            "variant": subject.variant,
            "verified": subject.verified,
        },
        "device": wanted.device,
        "gpu": host.get("gpu") or f"no GPU ({host.get('cpu', 'an unknown processor')})",
        "maxAbsErrorPpm": max((item["maxAbsErrorPpm"] for item in tried), default=0),
        "maxRelErrorPpm": max((item["maxRelErrorPpm"] for item in tried), default=0),
        **({} if speedup is None else {"speedupPpm": speedup}),
        "cases": {"name": wanted.cases.name, "digest": str(wanted.cases.digest)},
        "freshSeed": said.get("freshSeed", 0),
        "problem": said["problem"],
        "tried": tried,
        "timed": timed,
        "host": host,
        "confined": said["confined"],
    }


def _judged(order: Mapping[str, Any]) -> dict[str, Any]:
    command = [sys.executable, "-P", "-m", "kgate_client.qualify.judge"]
    try:
        done = subprocess.run(  # noqa: S603  # this very interpreter
            command,
            input=json.dumps(order).encode(),
            env=order["environment"],
            capture_output=True,
            timeout=TOTAL,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return _nothing(f"it was not over after {TOTAL:.0f} seconds")
    if done.returncode or len(done.stdout) > MAX_RESULT:
        last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        return _nothing(f"the judge ended with code {done.returncode}: {''.join(last)[:300]}")
    said: dict[str, Any] = json.loads(done.stdout)
    if "error" in said:
        raise InvalidInput(said["error"], hint=said["hint"])
    return said


def _nothing(problem: str) -> dict[str, Any]:
    return {"confined": [], "tried": [], "timed": [], "problem": problem}


def _environment(environ: Mapping[str, str], scratch: Path) -> dict[str, str]:
    """Return the environment of judge and kernel: no secret, no home, caches in the scratch."""
    kept = {name: environ[name] for name in _PASSED_ON if name in environ}
    own = {
        "HOME": str(scratch),
        "TMPDIR": str(scratch),
        "USER": "kgate",
        "TRITON_CACHE_DIR": str(scratch / "triton"),
        "TORCHINDUCTOR_CACHE_DIR": str(scratch / "inductor"),
        "CUDA_CACHE_PATH": str(scratch / "cuda"),
        "HF_HUB_OFFLINE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONNOUSERSITE": "1",
    }
    return kept | own


def _metadata(folder: Path) -> dict[str, Any]:
    try:
        data = (folder / "metadata.json").read_bytes()
    except OSError as exc:
        raise InvalidInput(
            f"this is no build variant: it has no metadata.json ({os.strerror(exc.errno or 0)})",
            hint="name a folder such as build/torch-cpu, or the repository above it",
        ) from exc
    document = strictjson.loads(data, what="metadata.json", floats=True)
    name = strictjson.take(document, "id", str, what="metadata.json")
    if problem := check_name(name):
        raise InvalidInput(f"metadata.json: {problem}")
    found: dict[str, Any] = document
    return found
