"""A pod on disk: trust root, kgate cache and a Hub cache that holds one small real kernel.

Programs run in child processes with the stock `kernels` client and the shim as it is installed;
what they print last is JSON. The kernel is pure Python (`torch-cpu`), so that no compiler is
needed; its layer doubles its input, the fallback in `MODEL` does the same in plain PyTorch.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from kgate_client.attestations import Attested
from kgate_core.kernel import KernelId, KernelRef, RepoType, Revision
from kgate_core.lock import Lock, LockedKernel, LockedVariant
from tests.nursery import TIMEOUT, run_forked
from tests.trustkit import ORIGIN, TrustKit, make_trust, manifest_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from kgate_core.manifest import Manifest
    from kgate_core.trust import Lane
    from kgate_signer.keys import FileKey
    from kgate_signer.trustwriter import TrustSet

COMMIT: Final = "0123456789abcdef0123456789abcdef01234567"
VARIANT: Final = "torch-cpu"
REPO: Final = "acme/double"

INIT: Final = """
import os
from . import layers
from .numbers import FACTOR

def double(x):
    return x * FACTOR

def lazily():
    from . import later
    return later.VALUE

print("kernel ran from", os.path.dirname(__file__), flush=True)
"""
FILES: Final[dict[str, bytes]] = {
    "__init__.py": INIT.encode(),
    "numbers.py": b"FACTOR = 2\n",
    "later.py": b"VALUE = 'signed'\n",
    "layers.py": b"import torch.nn as nn\n\nclass Double(nn.Module):\n"
    b"    def forward(self, x):\n        return x * 2\n",
    "metadata.json": json.dumps(
        {
            "id": "_double_universal_0001",
            "name": "double",
            "version": 1,
            "license": "Apache-2.0",
            "python-depends": [],
            "backend": {"type": "cpu"},
        }
    ).encode(),
}

GET: Final = f"""
import json
from kernels import get_kernel
try:
    kernel = get_kernel({REPO!r}, revision={COMMIT!r})
    print(json.dumps({{"outcome": "loaded", "file": kernel.__file__}}))
except FileNotFoundError as exc:
    print(json.dumps({{"outcome": "fallback", "reason": getattr(exc, "reason", ""),
                      "message": str(exc)}}))
"""

MODEL: Final = f"""
import json
import torch
from torch import nn
from kernels import LayerRepository, Mode, kernelize, use_kernel_forward_from_hub
from kernels import use_kernel_mapping

@use_kernel_forward_from_hub("Double")
class Double(nn.Module):
    def forward(self, x):
        return x + x

def run(use_fallback=True, repo={REPO!r}, **pin):
    pin = pin or {{"revision": {COMMIT!r}}}
    model = nn.Sequential(Double())
    mapping = {{"Double": {{"cpu": LayerRepository(repo, layer_name="Double", **pin)}}}}
    with use_kernel_mapping(mapping, inherit_mapping=False):
        kernelize(model, mode=Mode.INFERENCE, device="cpu", use_fallback=use_fallback)
    own = model[0].forward.__func__ is Double.forward
    value = model(torch.ones(2)).tolist()
    return {{"outcome": "fallback" if own else "loaded", "value": value}}
"""


def lock_of(**changes: Any) -> bytes:
    """Return a kgate.lock that holds the kernel; `changes` replaces fields of its entry."""
    entry = LockedKernel(
        origin=ORIGIN,
        repo_type=RepoType.KERNEL,
        repo=KernelRef.parse(REPO),
        lane="experimental",
        pin="v1",
        commit=Revision(COMMIT),
        variants={VARIANT: LockedVariant(manifest_of(FILES).digest, 1, 1)},
    )
    return Lock((replace(entry, **changes),)).to_bytes()


@dataclass(frozen=True)
class Result:
    """How a child process ended."""

    value: Any
    """The JSON of its last line."""
    stdout: str
    stderr: str
    reports: tuple[dict[str, Any], ...]
    """The decisions that the shim wrote down."""


@dataclass(frozen=True)
class Pod:
    """One pod's directories and the site that its mirror would belong to."""

    home: Path
    trust: TrustKit

    @classmethod
    def make(
        cls,
        home: Path,
        *lanes: Lane,
        files: Mapping[str, bytes] = FILES,
        admitted: bool = True,
        age: timedelta = timedelta(0),
        keys: tuple[FileKey, ...] = (),
    ) -> Pod:
        """Lay out a pod with the kernel in its Hub cache, admitted unless told otherwise.

        `age` is how long ago its trust metadata was issued; `lanes` and `keys` join the usual.
        """
        now = datetime.now(UTC).replace(microsecond=0) - age
        pod = cls(home, make_trust(*lanes, now=now, keys=keys))
        pod.cache_kernel(files)
        pod.write_trust(pod.trust.trust)
        if admitted:
            pod.admit(files)
        return pod

    @property
    def hub(self) -> Path:
        """The Hub cache."""
        return self.home / "hf" / "hub"

    @property
    def cache(self) -> Path:
        """The shim's own cache."""
        return self.home / "hf" / "kgate"

    @property
    def root(self) -> Path:
        """The pinned trust root."""
        return self.home / "root.json"

    def variant(self, repo: str = REPO, commit: str = COMMIT) -> Path:
        """Return the kernel's variant directory in the Hub cache."""
        folder = "kernels--" + repo.replace("/", "--")
        return self.hub / folder / "snapshots" / commit / "build" / VARIANT

    def cache_kernel(
        self, files: Mapping[str, bytes], repo: str = REPO, commit: str = COMMIT
    ) -> Path:
        """Write a kernel into the Hub cache as huggingface_hub lays it out: links into blobs."""
        variant = self.variant(repo, commit)
        blobs = variant.parents[3] / "blobs"
        blobs.mkdir(parents=True, exist_ok=True)
        for path, data in files.items():
            blob = blobs / hashlib.sha256(data).hexdigest()
            blob.write_bytes(data)
            link = variant / path
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.relpath(blob, link.parent))
        refs = variant.parents[3] / "refs"
        refs.mkdir(exist_ok=True)
        (refs / "v1").write_text(commit)
        return variant

    def materialise(self, path: str) -> Path:
        """Replace a link of the variant by a file of its own, ready to be changed."""
        file = self.variant() / path
        data = file.read_bytes()
        file.unlink()
        file.write_bytes(data)
        return file

    def write_trust(self, trust: TrustSet) -> None:
        """Pin the first root and cache the documents, as `kgate warm` does."""
        self.root.write_bytes(trust.roots[0])
        target = self.cache / "trust"
        target.mkdir(parents=True, exist_ok=True)
        for number, root in enumerate(trust.roots[1:], start=2):
            (target / f"{number}.root.json").write_bytes(root)
        for role in ("timestamp", "snapshot", "targets"):
            (target / f"{role}.json").write_bytes(getattr(trust, role))

    def admit(
        self, files: Mapping[str, bytes], repo: str = REPO, commit: str = COMMIT, **changes: Any
    ) -> Manifest:
        """Sign a decision about these files and put it into the pod's cache."""
        manifest = manifest_of(files)
        self.write_attestations(manifest, self.bundle(manifest, files, repo, commit, **changes))
        name = self.cache / "names" / repo / commit / VARIANT
        name.parent.mkdir(parents=True, exist_ok=True)
        name.write_text(manifest.digest.hex)
        return manifest

    def bundle(
        self,
        manifest: Manifest,
        files: Mapping[str, bytes],
        repo: str = REPO,
        commit: str = COMMIT,
        **changes: Any,
    ) -> bytes:
        """Return a signed decision about these files under this name."""
        kernel = KernelId(ORIGIN, RepoType.KERNEL, KernelRef.parse(repo), Revision(commit), VARIANT)
        facts: dict[str, Any] = {
            "kernel": kernel,
            "upstream_revision": kernel.revision,
            "metadata_id": json.loads(files["metadata.json"])["id"],
        }
        return self.trust.bundle(manifest, **(facts | changes))

    def write_attestations(self, manifest: Manifest, *bundles: bytes) -> None:
        """Put a document of attestations into the pod's cache."""
        target = self.cache / "attestations" / f"{manifest.digest.hex}.json"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(Attested(manifest, bundles).to_bytes())

    def environment(self, **changes: str | None) -> dict[str, str]:
        """Return a child's whole environment; None takes a variable away."""
        environment: dict[str, str | None] = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "HF_HOME": str(self.home / "hf"),
            "HF_ENDPOINT": "http://127.0.0.1:9",
            "HF_HUB_OFFLINE": "1",
            "NO_PROXY": "127.0.0.1",
            "OMP_NUM_THREADS": "1",
            "KGATE_TRUST_ROOT": str(self.root),
            "KGATE_REPORT": str(self.home / "report.jsonl"),
            **changes,
        }
        return {name: value for name, value in environment.items() if value is not None}

    def run(self, program: str, **changes: str | None) -> Result:
        """Run a program in a new process and return what it printed last, and the reports."""
        if "KGATE_DISABLE" in changes:
            return self.run_fresh(program, **changes)
        report = self._clean_report()
        done = run_forked(program, self.environment(**changes), self.home)
        return self._result(done, report)

    def run_without_shim(self, program: str, **changes: str | None) -> Result:
        """Run it in a process that the shim was never in: what everything is compared with."""
        report = self._clean_report()
        environment = self.environment(KGATE_TRUST_ROOT=None, KGATE_DISABLE="1", **changes)
        return self._result(
            run_forked(program, environment, self.home, hooked=False),
            report,
        )

    def run_fresh(self, program: str, **changes: str | None) -> Result:
        """Run it in a newly started Python, where start-up or the search path matters."""
        report = self._clean_report()
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=self.environment(**changes),
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        return self._result(done, report)

    def _clean_report(self) -> Path:
        report = self.home / "report.jsonl"
        report.unlink(missing_ok=True)
        return report

    @staticmethod
    def _result(done: subprocess.CompletedProcess[str], report: Path) -> Result:
        assert done.returncode == 0, done.stderr
        lines = report.read_text().splitlines() if report.exists() else []
        return Result(
            json.loads(done.stdout.splitlines()[-1]),
            done.stdout,
            done.stderr,
            tuple(json.loads(line) for line in lines),
        )

    def with_trust(self, trust: TrustSet) -> Pod:
        """Return the pod after its mirror changed the trust metadata."""
        pod = replace(self, trust=self.trust.changed(trust))
        pod.write_trust(pod.trust.trust)
        return pod
