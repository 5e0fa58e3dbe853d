"""Two sites that share nothing but files: each in a network namespace with loopback only.

Every command and every client is a process inside its own namespace. What crosses is a folder that
stands for the disc, and a receipt that goes back.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.services import find_program
from tests.sitekit import REPO, UPSTREAM, Site, built_kernels

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PORT: Final = 8800
KGATE: Final = "import sys; from kgate_cli.main import main; sys.exit(main())"
LISTEN: Final = (
    "import socket, time; s = socket.create_server(('127.0.0.1', 8800));"
    " print('listening', flush=True); time.sleep(60)"
)
CONNECT: Final = """
import socket
reached = []
for host in ("127.0.0.1", "10.0.0.1", "1.1.1.1", "192.168.0.1"):
    try:
        socket.create_connection((host, 8800), 1).close()
        reached.append(host)
    except OSError:
        pass
print(reached)
"""
# A user's model: a layer of its own, which `kernelize` replaces if the kernel may be used.
MODEL: Final = """
import json
import torch
from torch import nn
from kernels import LayerRepository, Mode, kernelize, use_kernel_forward_from_hub
from kernels import use_kernel_mapping

@use_kernel_forward_from_hub("GeluAndMul")
class GeluAndMul(nn.Module):
    def forward(self, x):
        half = x.shape[-1] // 2
        return nn.functional.gelu(x[..., :half]) * x[..., half:]

model = nn.Sequential(GeluAndMul())
x = torch.linspace(-2, 2, 16).reshape(2, 8)
expected = model(x)
layer = LayerRepository("kernels-community/gelu-and-mul", layer_name="GeluAndMul", version=1)
with use_kernel_mapping({"GeluAndMul": {"cpu": layer}}, inherit_mapping=False):
    kernelize(model, mode=Mode.INFERENCE, device="cpu", use_fallback=True)
own = model[0].forward.__func__ is GeluAndMul.forward
close = bool(torch.allclose(model(x), expected, atol=1e-5))
print(json.dumps({"outcome": "fallback" if own else "loaded", "equal": close}))
"""


@dataclass(frozen=True)
class Namespace:
    """A network namespace in which only loopback is up."""

    name: str
    ip: str

    def command(self, *arguments: str) -> list[str]:
        """Return how to run a program inside."""
        return [self.ip, "netns", "exec", self.name, *arguments]

    def python(
        self, program: str, *arguments: str, code: int = 0, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a Python program inside and check its exit code."""
        done = subprocess.run(
            self.command(sys.executable, "-c", program, *arguments),
            capture_output=True, text=True, check=False, timeout=180,
            env={**_environment(), **variables},
        )  # fmt: skip
        assert done.returncode == code, f"{done.returncode}: {done.stdout}\n{done.stderr}"
        return done

    def kgate(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        """Run a command of kgate inside; returns its JSON."""
        done = self.python(KGATE, *arguments, "--json", code=code)
        found: dict[str, Any] = json.loads(done.stdout)
        return found


def _environment() -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": "/nonexistent",
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


@contextlib.contextmanager
def namespaces(*names: str) -> Iterator[list[Namespace]]:
    """Make namespaces with loopback only and take them away afterwards."""
    ip = find_program("ip", "iproute2")
    made = []
    try:
        for name in names:
            full = f"kgate-{name}-{os.getpid()}"
            subprocess.run([ip, "netns", "add", full], check=True, capture_output=True)
            made.append(Namespace(full, ip))
            up = made[-1].command(ip, "link", "set", "lo", "up")
            subprocess.run(up, check=True, capture_output=True)
        yield made
    finally:
        for namespace in made:
            subprocess.run([ip, "netns", "del", namespace.name], check=False, capture_output=True)


@contextlib.contextmanager
def running(namespace: Namespace, program: str, *arguments: str) -> Iterator[None]:
    """Run a server inside a namespace until the block ends; it prints a line when it is ready."""
    with subprocess.Popen(
        namespace.command(sys.executable, "-c", program, *arguments),
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=_environment(),
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            assert process.stdout.readline(), "the server ended"
            yield
        finally:
            process.terminate()
            process.wait(20)


@dataclass(frozen=True)
class Client:
    """A stock client with the shim, in the island's namespace."""

    namespace: Namespace
    home: Path
    root: Path

    def run(self) -> dict[str, Any]:
        """Run the model once; returns its outcome and the shim's last report."""
        self.home.mkdir(exist_ok=True)
        report = self.home / "report.jsonl"
        report.unlink(missing_ok=True)
        done = self.namespace.python(
            MODEL,
            HOME=str(self.home),
            HF_HOME=str(self.home / "hf"),
            HF_ENDPOINT=f"http://127.0.0.1:{PORT}",
            KGATE_TRUST_ROOT=str(self.root),
            KGATE_REPORT=str(report),
        )
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        lines = report.read_text().splitlines() if report.exists() else []
        return found | {"reports": [json.loads(line) for line in lines]}


def wait_ready(namespace: Namespace) -> None:
    """Wait until the island's mirror answers inside its namespace."""
    program = (
        "import urllib.request\n"
        f"urllib.request.urlopen('http://127.0.0.1:{PORT}/readyz', timeout=2).close()"
    )
    until = time.monotonic() + 30
    while time.monotonic() < until:
        done = subprocess.run(
            namespace.command(sys.executable, "-c", program),
            check=False, capture_output=True, env=_environment(),
        )  # fmt: skip
        if done.returncode == 0:
            return
        time.sleep(0.2)
    raise AssertionError("the island's mirror did not become ready")


@pytest.mark.slow
def test_a_kernel_crosses_the_gap_and_so_does_its_revocation(tmp_path: Path) -> None:
    kernels = built_kernels(tmp_path / "cache")
    disc, post = tmp_path / "disc", tmp_path / "post"
    connected, island = Site(tmp_path / "connected"), Site(tmp_path / "island")
    with namespaces("connected", "island") as (there, here):
        # No way between them: what listens in one cannot be reached from the other.
        with running(there, LISTEN):
            assert here.python(CONNECT).stdout.strip() == "[]"
            assert "127.0.0.1" in there.python(CONNECT).stdout

        # The connected site mirrors, scans, decides and signs; a bundle goes onto the disc.
        upstream = ("--upstream", f"./{UPSTREAM}", "--no-passphrase")
        there.kgate("init", str(connected.folder), *upstream, "--site", "https://connected.test")
        shutil.copytree(kernels, connected.folder / UPSTREAM / REPO)
        connected.pin(REPO, 1)
        own = ("--config", str(connected.config))
        assert there.kgate("sync", *own)["approved"] == 1
        there.kgate("bundle", "export", "-o", str(disc), "--part-size", "128KiB", *own)

        # The island has its own keys and policy; a person brought the sender's root by hand.
        here.kgate("init", str(island.folder), *upstream, "--site", "https://island.test")
        theirs = ("--config", str(island.config))
        root = ("--sender-root", str(connected.root))
        taken = here.kgate(
            "bundle", "import", str(disc), *root, "--receipt-dir", str(post), *theirs
        )
        assert (taken["approved"], taken["denied"]) == (1, 0)
        key = here.kgate("bundle", "receipt", "--key", "-o", str(post), *theirs)["files"][1]

        with running(here, KGATE, "serve", "--port", str(PORT), *theirs):
            wait_ready(here)
            client = Client(here, tmp_path / "pod", island.root)
            first = client.run()
            assert (first["outcome"], first["equal"]) == ("loaded", True)
            assert [item["outcome"] for item in first["reports"]] == ["loaded"]

            # The kernel turns out to be bad. The revocation travels as the difference only.
            (manifest,) = connected.manifests()
            reason = ("--reason", "CVE-2026-31337")
            there.kgate("revoke", str(manifest), *reason, *own)
            second = tmp_path / "disc2"
            since = ("--since", taken["receipt"], "--receiver-key", key)
            sent = there.kgate("bundle", "export", "-o", str(second), *since, *own)
            assert sent["bytes"] < 64 * 1024
            revoked = here.kgate(
                "bundle", "import", str(second), "--receipt-dir", str(post), *theirs
            )
            assert revoked["revoked"] == [str(manifest)]

            # The same client with its warm cache, and one that starts with nothing.
            time.sleep(1.5)  # the mirror looks once a second
            fresh = Client(here, tmp_path / "pod2", island.root)
            for pod in (client, fresh):
                age_trust(pod.home)
                last = pod.run()
                assert (last["outcome"], last["equal"]) == ("fallback", True), last

            # The first disc again does not bring the kernel back.
            refused = here.kgate("bundle", "import", str(disc), *theirs, code=1)
            assert "taken in already" in refused["message"]


def age_trust(home: Path) -> None:
    """Let a pod find out now what it would find out within its lane's soft window."""
    shutil.rmtree(home / "hf" / "kgate" / "trust", ignore_errors=True)
