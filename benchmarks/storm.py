"""A cold start of many replicas at once: each reads the tree and fetches every file, to nginx.

Light clients go through the request sequence of `snapshot_download` at once and throw the bytes
away. The limit is nginx serving the same bytes as plain files. Twice: kgate alone, and kgate
behind nginx with X-Accel-Redirect (deploy/nginx). Rounds are taken in turns; the ratio of the
slowest clients is the median over the rounds. At the end, with an empty store: two workers start on
the same pin at once, two replicas serve what they brought in, and what upstream was asked counts.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.support import mirrors, nginx
from benchmarks.support.coldstart import fetches_per_blob
from benchmarks.support.load import Ask, storm
from kgate_mirror_server.serve.settings import SendFile
from tests.mirrorkit import served

CLIENTS = 50
LARGE = 300 * 1024 * 1024  # bytes of the large file
SMALL = 4  # files beside it
ROUNDS = 3
CORES = os.cpu_count() or 1


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="kgate-storm-") as name:
        root = Path(name)
        files = mirrors.content(LARGE, small=SMALL)
        kit = mirrors.publish(root / "mirror", files)
        plain = mirrors.lay_out(root / "plain", files)
        tree = plain / f"api/kernels/{mirrors.KERNEL}/tree/v1"
        tree.parent.mkdir(parents=True)
        tree.write_bytes(b"[]" * 500)
        blobs = kit.settings.store / "blobs" / "sha256"
        alone = replace(kit.settings, workers=CORES)
        behind = replace(alone, send_file=SendFile.XACCEL)
        with (
            served(alone) as one,
            served(behind) as two,
            nginx.static(plain, CORES) as limit,
            nginx.in_front(port_of(two), blobs, CORES) as front,
        ):
            ports = {"limit": limit, "embedded": port_of(one), "xaccel": front}
            found = measure(ports, list(files))
        found["upstream_fetches_per_blob"] = fetches_per_blob(root / "cold", CLIENTS)
        print(json.dumps(found))


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


def measure(ports: dict[str, int], names: list[str]) -> dict[str, float | int]:
    asks = [Ask(f"/api/kernels/{mirrors.KERNEL}/tree/v1?recursive=true&expand=false")]
    for name in names:
        asks += [Ask(mirrors.place(name), "HEAD"), Ask(mirrors.place(name))]
    seconds: dict[str, list[float]] = {who: [] for who in ports}
    errors = 0
    for port in ports.values():
        storm(port, asks, 2)  # warm: files in memory, blobs looked at once
    for _ in range(ROUNDS):
        for who, port in ports.items():
            result = storm(port, asks, CLIENTS)
            errors += result.errors + (CLIENTS - result.requests)
            seconds[who].append(result.quantile(0.99))
            told = f"{who}: p99 {seconds[who][-1]:.2f} s, {result.throughput:.0f} MB/s"
            print(told, file=sys.stderr, flush=True)
    ratios = {
        who: statistics.median(
            ours / limit for ours, limit in zip(seconds[who], seconds["limit"], strict=True)
        )
        for who in ("embedded", "xaccel")
    }
    return {
        "p99_ratio_xaccel": round(ratios["xaccel"], 3),
        "p99_ratio_embedded": round(ratios["embedded"], 3),
        "p99_seconds_nginx": round(statistics.median(seconds["limit"]), 2),
        "clients": CLIENTS,
        "errors": errors,
    }


if __name__ == "__main__":
    main()
