"""How a catalog of many kernels behaves, and how that grows: lock, sync, ls, start-up, memory.

Synthetic kernels of ten pure-Python variants each, in a folder as upstream. The first comes in
through the real sync; the others are written straight into store, catalog, log and lock after its
pattern (`benchmarks/support/filling.py`). The figures are those of the real commands afterwards.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.support.filling import Filling, merged
from kgate_core.lock import Lock
from kgate_mirror_server.app import Mirror
from kgate_mirror_server.examples.metadata import digest_of
from kgate_mirror_server.ingest.resolve import read_lock, resolve_pin
from kgate_mirror_server.ingest.sync import new_source, refresh_trust, sync
from kgate_mirror_server.settings.site import LOCK_NAME, load_config
from kgate_mirror_server.trust.files import replace_file
from kgate_mirror_server.trust.publicationlog import record
from tests.ingestkit import Site, make_site, now
from tests.mirrorkit import free_port

SIZES = (200, 1000, 2000)
VARIANTS = [
    f"torch2{minor}-cxx11-cpu-{arch}-linux" for minor in "56789" for arch in ("x86_64", "aarch64")
]
PATIENCE = 600.0  # seconds until the server must be ready


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", nargs="*", type=int, default=list(SIZES))
    chosen = parser.parse_args()
    figures: dict[str, float | int] = {}
    with tempfile.TemporaryDirectory(prefix="kgate-catalog-") as name:
        site = make_site(Path(name) / "site", "./built")
        for size in chosen.sizes:
            measured = measure(site, size)
            figures |= {f"{key}_{size}": value for key, value in measured.items()}
            print(json.dumps(measured), file=sys.stderr, flush=True)
    print(json.dumps(figures))


def measure(site: Site, size: int) -> dict[str, float | int]:
    """Grow the site to so many kernels and take every figure there."""
    for number in range(size):
        build(site.folder / "built" / "acme" / f"kernel{number:05}", number)
    site.pin(*(f"repo: acme/kernel{number:05}, version: 1" for number in range(size)))
    known = pinned(site)
    start = time.process_time()
    fill(site)
    each = (time.process_time() - start) * 1000 / max(1, size - known)
    figures: dict[str, float | int] = {"kernels": size, "fill_cpu_ms_each": round(each, 1)}
    for command in (("lock",), ("sync", "--locked"), ("ls",)):
        seconds, cpu, memory = kgate(site, *command)
        figures |= {
            f"{command[0]}_s": seconds,
            f"{command[0]}_cpu_s": cpu,
            f"{command[0]}_mb": memory,
        }
    seconds, cpu, memory = serve(site)
    figures |= {"serve_ready_s": seconds, "serve_ready_cpu_s": cpu, "serve_mb": memory}
    database = site.folder / "kgate-data" / "kgate.db"
    figures["database_mb"] = round(database.stat().st_size / 1e6, 1)
    return figures


def _no_fsync(fd: object) -> None:
    del fd


def fill(site: Site) -> None:
    """Publish what is new: the first kernel for real, the others after its pattern."""
    os.fsync = _no_fsync  # what a disk can do is not the question here
    before = read_lock(site.folder)
    mirror = Mirror(load_config(site.config_path))
    try:
        pins = mirror.config.kernels
        source = new_source(mirror, lambda _count: None)
        if before is None:
            before = Lock((resolve_pin(source, mirror.config, pins[0]),))
            mirror.config = mirror.config.model_copy(update={"kernels": pins[:1]})
            result = sync(mirror, before, source, now(), tell=lambda _text: None)
            mirror.config = mirror.config.model_copy(update={"kernels": pins})
            if result.failures or result.denied:
                raise SystemExit(f"{result.denied} denied, {result.failures}")
        filling = Filling(mirror, before.kernels[0], now())
        new = pins[len(before.kernels) :]
        built = site.folder / "built"
        files = {
            f"{pin.repo} {name}": {
                path.name: path.read_bytes()
                for path in (built / pin.repo / "build" / name).iterdir()
            }
            for pin in new
            for name in VARIANTS
        }
        lock = merged(before, filling.publish(new, files, source))
        replace_file(site.folder / LOCK_NAME, lock.to_bytes())
        record(mirror, now())
        refresh_trust(mirror, now())
    finally:
        mirror.close()


def pinned(site: Site) -> int:
    """Return how many kernels are locked already."""
    path = site.folder / "kgate.lock"
    return len(json.loads(path.read_bytes())["kernels"]) if path.exists() else 0


def build(folder: Path, number: int) -> None:
    """Write a kernel as kernel-builder would, if it is not there yet."""
    if folder.exists():
        return
    for name in VARIANTS:
        variant = folder / "build" / name
        variant.mkdir(parents=True)
        (variant / "__init__.py").write_text(f"ANSWER = {number}\n", encoding="utf-8")
        document = {
            "name": folder.name,
            "id": f"_{folder.name}_{name.replace('-', '_')}",
            "version": 1,
            "license": "Apache-2.0",
            "python-depends": [],
            "backend": {"type": "cpu"},
        }
        path = variant / "metadata.json"
        path.write_text(json.dumps(document), encoding="utf-8")
        path.write_text(json.dumps({**document, "digest": digest_of(variant)}), encoding="utf-8")


def kgate(site: Site, *arguments: str) -> tuple[float, float, int]:
    """Run a command as a person does; return its seconds, CPU seconds and peak memory in MB."""
    program = "import sys; from kgate_cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", program, *arguments, "--config", str(site.config_path)]
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"kgate {' '.join(arguments)} ended with {process.returncode}")
    cpu = round(usage.ru_utime + usage.ru_stime, 2)
    return round(time.monotonic() - start, 2), cpu, usage.ru_maxrss // 1024


def serve(site: Site) -> tuple[float, float, int]:
    """Start the server; return seconds and CPU seconds until it is ready, and the memory in MB.

    Processes that it started are counted with it.
    """
    import urllib.error
    import urllib.request

    port = free_port()
    program = "import sys; from kgate_cli.main import main; sys.exit(main())"
    start = time.monotonic()
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", program, "serve", "--port", str(port)),
            *("--config", str(site.config_path)),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while time.monotonic() - start < PATIENCE:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
                    break
            except (urllib.error.URLError, OSError):
                time.sleep(0.05)
        else:
            raise SystemExit("the server did not become ready")
        ready = round(time.monotonic() - start, 2)
        own = [process.pid, *_children(process.pid)]
        return ready, round(sum(map(_cpu, own)), 2), sum(map(_peak, own))
    finally:
        process.terminate()
        process.wait(30)


def _children(pid: int) -> list[int]:
    """Return the processes that a process started, theirs included."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    own = [int(text) for task in tasks for text in task.read_text(encoding="ascii").split()]
    return [*own, *(inner for child in own for inner in _children(child))]


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
    return sum(int(field) for field in fields[11:13]) / os.sysconf("SC_CLK_TCK")


def _peak(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(peak.split()[1]) // 1024


if __name__ == "__main__":
    main()
