"""What the shim costs a pod: starting, importing, verifying, sealing, loading, calling.

Every figure is a ratio taken in this run: against importing `kernels`, against plain sha256 of the
same bytes, against sigstore and model-signing on the same machine. The last line is the result.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT)]

from kgate_client.asked import Asked  # noqa: E402  # after the path
from kgate_client.process import build  # noqa: E402
from tests.podkit import COMMIT, FILES, REPO, Pod  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

LARGE = 400 * 1024**2  # bytes
SMALL = 100 * 1024**2
ROUNDS = 5
STARTS = 9
PEERS = ROOT / ".cache" / "benchmarks" / "peers"
MODEL_SIGNING = ("model-signing==1.1.1", "pyopenssl")  # imports the latter without naming it


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="kgate-bench-", dir=_scratch()) as folder:
        home = Path(folder)
        figures: dict[str, Any] = {}
        figures |= starting()
        figures |= verifying(home / "small")
        figures |= large_variant(home / "large")
        figures |= warm_load(home / "warm")
    print(json.dumps(figures))


def starting() -> dict[str, float]:
    """CPU seconds of imports, each in its own process."""
    base = "kgate_client.autoload"
    kernels = _median(lambda: _import_cost("kernels"), STARTS)
    hook = _median(lambda: _import_cost(base), STARTS)
    gate = _median(lambda: _import_cost(base, "kgate_client.process", "kgate_client.pod"), STARTS)
    verifier = _median(lambda: _import_cost("kgate_core.verify"), STARTS)
    sigstore = _median(lambda: _import_cost("sigstore.verify"), 3)
    return {
        "hook_ratio": round(hook / kernels, 4),
        "import_ratio": round(gate / kernels, 3),
        "sigstore_import_ratio": round(verifier / sigstore, 3),
        "hook_ms": round(hook * 1000, 3),
    }


def _import_cost(*names: str) -> float:
    program = (
        "import os, sys, time; start = time.process_time(); "
        + "; ".join(f"import {name}" for name in names)
        + "; print(time.process_time() - start)"
    )
    # -S: the start-up hook itself must not have run before; what it needs is on the path.
    path = os.pathsep.join([str(ROOT / "core"), str(ROOT / "client"), *map(str, _site())])
    done = subprocess.run(
        [sys.executable, "-S", "-c", program],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": path, "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return float(done.stdout)


def verifying(home: Path) -> dict[str, float]:
    """Milliseconds to parse and verify one bundle."""
    from kgate_core.verify import Expected, Verified, verify

    pod = Pod.make(home)
    manifest = pod.admit(FILES)
    bundle = pod.bundle(manifest, FILES)
    trusted = pod.trust.trusted()
    expected = Expected("torch-cpu", "experimental")

    def once() -> float:
        start = time.perf_counter()
        verdict = verify(expected, manifest, [bundle], trusted, now=pod.trust.now)
        assert isinstance(verdict, Verified)
        return time.perf_counter() - start

    return {"keyed_verify_ms": round(_median(once, 200) * 1000, 3)}


def large_variant(home: Path) -> dict[str, float]:
    """A variant of 500 MB: read, verified, sealed; against sha256 of its bytes and a peer."""
    block = os.urandom(1024**2)
    files = FILES | {
        "_large.abi3.bin": b"".join(block[n:] + block[:n] for n in range(LARGE // len(block))),
        "_small.abi3.bin": b"".join(block[n:] + block[:n] for n in range(SMALL // len(block))),
    }
    pod = Pod.make(home, files=files)
    paths = [pod.variant() / path for path in files]
    del files

    def plain() -> float:
        start = time.perf_counter()
        buffer = bytearray(1024**2)
        for path in paths:
            state = hashlib.sha256()
            with path.open("rb", buffering=0) as stream:
                while count := stream.readinto(buffer):
                    state.update(memoryview(buffer)[:count])
        return time.perf_counter() - start

    def check(*, seal: bool, keep: bool = False) -> float:
        if not keep:
            _remove(pod.cache / "sealed")
        shim = build(pod.environment())
        start = time.perf_counter()
        answer = shim.gate.check(Asked(REPO, COMMIT), pod.variant(), seal=seal)
        spent = time.perf_counter() - start
        assert type(answer).__name__ == "Cleared", answer
        return spent

    model_signing = _model_signing(pod, home)
    plain()
    # Interleaved: the machine's moods hit all alike.
    rounds = [
        (
            plain(),
            check(seal=False),
            check(seal=True),
            check(seal=True, keep=True),
            model_signing(),
        )
        for _ in range(ROUNDS)
    ]
    middle = [statistics.median(column) for column in zip(*rounds, strict=True)]
    return {
        "verify_ratio_sha256": round(middle[1] / middle[0], 3),
        "seal_ratio": round(middle[2] / middle[0], 3),
        "reuse_ratio": round(middle[3] / middle[0], 3),
        "model_signing_ratio": round(middle[1] / middle[4], 3),
        "sha256_mb_per_second": round((LARGE + SMALL) / 1e6 / middle[0]),
    }


def _model_signing(pod: Pod, home: Path) -> Callable[[], float]:
    """Return a function that lets model-signing verify the same files, timed inside of it."""
    python = PEERS / "bin" / "python"
    if not (PEERS / "ready").exists():
        venv.create(PEERS, with_pip=True)
        _quiet(str(python), "-m", "pip", "install", "--quiet", *MODEL_SIGNING)
        (PEERS / "ready").touch()
    key, public, signature = (home / name for name in ("key.pem", "public.pem", "model.sig"))
    _quiet("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(key))
    _quiet("openssl", "ec", "-in", str(key), "-pubout", "-out", str(public))
    model = home / "plain"
    shutil.copytree(pod.variant(), model)  # without links, which it would refuse
    sign = f"""
import model_signing
config = model_signing.signing.Config().use_elliptic_key_signer(private_key={str(key)!r})
config.sign({str(model)!r}, {str(signature)!r})
"""
    verify = f"""
import time, model_signing
config = model_signing.verifying.Config().use_elliptic_key_verifier(public_key={str(public)!r})
start = time.perf_counter()
config.verify({str(model)!r}, {str(signature)!r})
print(time.perf_counter() - start)
"""
    _quiet(str(python), "-c", sign)
    return lambda: float(_quiet(str(python), "-c", verify))


def warm_load(home: Path) -> dict[str, float]:
    """Sockets of a load from a filled cache, and the cost of a call."""
    pod = Pod.make(home)
    program = f"""
import json, sys, timeit
sockets = []
sys.addaudithook(lambda event, _: sockets.append(event) if event.startswith("socket.") else None)
from kernels import get_kernel
kernel = get_kernel({REPO!r}, revision={COMMIT!r})
best = min(timeit.repeat("f(3)", globals={{"f": kernel.double}}, number=200_000, repeat=15))
print(json.dumps([len(sockets), best]))
"""
    gated, ungated = [], []
    for _ in range(ROUNDS):
        gated.append(pod.run_fresh(program).value)
        ungated.append(pod.run_fresh(program, KGATE_DISABLE="1", KGATE_TRUST_ROOT=None).value)
    ratio = min(best for _, best in gated) / min(best for _, best in ungated)
    return {
        "sockets_warm": max(sockets for sockets, _ in gated),
        "call_overhead_ratio": round(ratio, 3),
    }


def _median(measure: Callable[[], float], rounds: int) -> float:
    return statistics.median(measure() for _ in range(rounds))


def _quiet(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=240)
    return done.stdout


def _remove(folder: Path) -> None:
    from kgate_client.seal import discard

    discard(folder)


def _site() -> list[Path]:
    return [Path(path) for path in sys.path if path.endswith("site-packages")]


def _scratch() -> str | None:
    return os.environ.get("TMPDIR")


if __name__ == "__main__":
    main()
