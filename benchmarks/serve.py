"""How fast files, heads and ranges come, against plain nginx and against olah with a warm cache.

Rounds are taken in turns and the median of their ratios is printed. Starts its peers itself:
nginx from Debian, olah from PyPI in an environment of its own (kept under .cache/).
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

from benchmarks.support import mirrors, nginx, olah
from benchmarks.support.load import Ask, hammer
from tests.mirrorkit import served

CONNECTIONS = 64
LARGE = 200 * 1024 * 1024  # bytes of the large file
SECONDS = 2.0  # of one measurement
ROUNDS = 3
CORES = os.cpu_count() or 1


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="kgate-serve-") as name:
        root = Path(name)
        files = mirrors.content(LARGE)
        kit = mirrors.publish(root / "mirror", files)
        plain = mirrors.lay_out(root / "plain", files)
        settings = replace(kit.settings, workers=CORES)
        with served(settings) as address, nginx.static(plain, CORES) as limit:
            ours = int(address.rpartition(":")[2])
            figures = against_nginx(ours, limit, list(files))
            figures |= against_olah(ours, root / "olah", address)
    print(json.dumps(figures))


def against_nginx(ours: int, limit: int, names: list[str]) -> dict[str, float | int]:
    small = [Ask(mirrors.place(name)) for name in names if name.endswith(".py")]
    heads = [replace(ask, method="HEAD") for ask in small]
    whole = [Ask(mirrors.place(mirrors.LARGE))]
    ranged = [replace(whole[0], headers=(("Range", f"bytes=1000-{LARGE - 1000}"),))]
    ratios: dict[str, list[float]] = {"small": [], "head": [], "range": [], "big": []}
    rates: dict[str, list[float]] = {"small_rps": [], "head_rps": [], "big_mb_s": []}
    errors = 0
    for port in (ours, limit):
        hammer(port, [*small, *whole], 4, 1.0)  # warm
    for _ in range(ROUNDS):
        results = {
            (kind, who): hammer(port, asks, connections, SECONDS)
            for kind, asks, connections in (
                ("small", small, CONNECTIONS),
                ("head", heads, CONNECTIONS),
                ("big", whole, 16),
                ("range", ranged, 16),
            )
            for who, port in (("ours", ours), ("limit", limit))
        }
        for (kind, who), result in results.items():
            told = f"{result.rate:.0f}/s {result.throughput:.0f} MB/s {result.errors} errors"
            print(kind, who, told, file=sys.stderr, flush=True)
        errors += sum(result.errors for result in results.values())
        for kind in ("small", "head"):
            ratios[kind].append(results[kind, "ours"].rate / results[kind, "limit"].rate)
            rates[f"{kind}_rps"].append(results[kind, "ours"].rate)
        full = results["big", "ours"].throughput
        rates["big_mb_s"].append(full)
        ratios["big"].append(full / results["big", "limit"].throughput)
        ratios["range"].append(results["range", "ours"].throughput / full)
    return {
        "small_rps_ratio": round(statistics.median(ratios["small"]), 3),
        "head_rps_ratio": round(statistics.median(ratios["head"]), 3),
        "range_ratio": round(statistics.median(ratios["range"]), 3),
        "big_ratio": round(statistics.median(ratios["big"]), 3),
        **{name: round(statistics.median(values)) for name, values in rates.items()},
        "errors": errors,
    }


def against_olah(ours: int, folder: Path, upstream: str) -> dict[str, float]:
    """Compare with olah mirroring this very mirror, from its warm cache."""
    small, large = Ask(mirrors.place("file00.py")), Ask(mirrors.place(mirrors.LARGE))
    with olah.mirror(folder, upstream) as theirs:
        for ask in (small, large):
            hammer(theirs, [ask], 1, 0.1)  # fills its cache
        slow = {
            "small": hammer(theirs, [small], 16, 8.0),
            "big": hammer(theirs, [large], 1, 6.0),
        }
    fast = {"small": hammer(ours, [small], 16, 3.0), "big": hammer(ours, [large], 1, 3.0)}
    errors = sum(result.errors for result in slow.values())
    return {
        "olah_small_ratio": round(fast["small"].rate / slow["small"].rate, 1),
        "olah_big_ratio": round(fast["big"].throughput / slow["big"].throughput, 1),
        "olah_errors": errors,
    }


if __name__ == "__main__":
    main()
