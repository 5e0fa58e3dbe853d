"""How long a bundle takes beside hashing the same bytes once, and how small a difference is.

A site publishes one kernel of half a gigabyte. `export_ratio_sha256` and `import_ratio_sha256` are
times of writing all parts, and of reading and storing them verified, each divided by the time of
one sha256 over the same bytes in the same run; `*_cpu_ratio` is the same in processor time and
`*_ratio_copy` compares with copying and syncing the file. Scanning and deciding at the far side is
not in them: `kgate sync` costs the same. `differential_ratio` is the size of a bundle after one
file of 1 kB changed, divided by the size of the full one. `--cut` takes parts so small that the
large file is cut into eight.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from kgate_mirror_server.bundle.document import BUNDLE, BundleDocument
from kgate_mirror_server.bundle.packing import DEFAULT_PART
from kgate_mirror_server.bundle.parts import choose_bundle, find_parts, locate
from kgate_mirror_server.bundle.receiving import receive
from kgate_mirror_server.bundle.sealed import Sealed
from kgate_mirror_server.store.disk import DiskStore
from tests.bundlekit import World, parts, silent
from tests.sitekit import CONNECTED, ISLAND, Site, built_kernels

if TYPE_CHECKING:
    from collections.abc import Callable

SIZE = 500_000_000  # bytes of the large file
ROUNDS = 3
CHUNK = 1024 * 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the JSON line only")
    parser.add_argument("--cut", action="store_true", help="cut the large file into eight")
    options = parser.parse_args()
    say: Callable[[str], object] = silent if options.json else print
    with tempfile.TemporaryDirectory(prefix="kgate-bench-") as name:
        figures = measure(Path(name), SIZE // 8 if options.cut else DEFAULT_PART, say)
    print(json.dumps(figures))
    return 0


def measure(folder: Path, part_size: int, say: Callable[[str], object]) -> dict[str, Any]:
    kernels = built_kernels(folder / "cache")
    connected = Site.found(folder / "connected", CONNECTED, kernels=kernels)
    say(f"publishing a kernel of {SIZE} bytes")
    fill(connected.variant / "table.bin", SIZE)
    connected.add_file("note.txt", b"a" * 1000)
    assert connected.sync().approved == 1
    world = World(connected, Site.found(folder / "island", ISLAND), folder / "disc")
    blob = next(
        file.digest for file in connected.publications()[0].variants[0].files if file.size == SIZE
    )
    source = connected.mirror().store.path(blob)
    taken: dict[str, list[Cost]] = {"hash": [], "copy": [], "export": [], "import": []}
    for number in range(ROUNDS):
        say(f"round {number + 1} of {ROUNDS}")
        shutil.rmtree(world.disc, ignore_errors=True)
        taken["hash"].append(cost(lambda: digest(source)))
        taken["copy"].append(cost(lambda: copy(source, folder / "copy")))
        taken["export"].append(cost(lambda: world.export(part_size=part_size)))
        taken["import"].append(cost(lambda: take(world.disc, folder / "store")))
        shutil.rmtree(folder / "store")
    wall = {name: statistics.median(item.wall for item in found) for name, found in taken.items()}
    processor = {
        name: statistics.median(c.processor for c in found) for name, found in taken.items()
    }
    full = sum(path.stat().st_size for path in parts(world.disc))
    count = len(parts(world.disc))
    say("a difference after one file of 1 kB changed")
    record = world.export(folder / "again", part_size=DEFAULT_PART).record
    connected.add_file("note.txt", b"b" * 1000)
    connected.sync()
    world.export(folder / "difference", receipt=record, part_size=DEFAULT_PART)
    difference = sum(path.stat().st_size for path in parts(folder / "difference"))
    return {
        "export_ratio_sha256": round(wall["export"] / wall["hash"], 3),
        "import_ratio_sha256": round(wall["import"] / wall["hash"], 3),
        "export_cpu_ratio": round(processor["export"] / processor["hash"], 3),
        "import_cpu_ratio": round(processor["import"] / processor["hash"], 3),
        "export_ratio_copy": round(wall["export"] / wall["copy"], 3),
        "import_ratio_copy": round(wall["import"] / wall["copy"], 3),
        "differential_ratio": round(difference / full, 6),
        "differential_bytes": difference,
        "full_bytes": full,
        "parts": count,
        "sha256_mb_s": round(SIZE / wall["hash"] / 1e6),
        "rounds": ROUNDS,
    }


def fill(path: Path, size: int) -> None:
    """Write bytes that do not compress."""
    block = os.urandom(CHUNK)
    with path.open("wb") as stream:
        for start in range(0, size, CHUNK):
            stream.write(block[: min(CHUNK, size - start)])


def digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def take(disc: Path, store: Path) -> None:
    """Read every part into an empty store, verified, as an import does before it decides."""
    found = find_parts([disc])
    chosen = choose_bundle(found)[0]
    document = BundleDocument.from_json(Sealed.parse(chosen.raw, BUNDLE).document)
    located = locate(found, chosen, document)
    staging = DiskStore(store / "incoming")
    received = receive(
        DiskStore(store), staging, document, len(chosen.raw), located, silent, silent
    )
    assert received.complete


def copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
    with target.open("rb") as stream:
        os.fsync(stream.fileno())
    target.unlink()


@dataclass(frozen=True)
class Cost:
    wall: float
    processor: float


def cost(call: Callable[[], object]) -> Cost:
    """Return seconds by the clock and on all processors."""
    start, processor = time.perf_counter(), time.process_time()
    call()
    return Cost(time.perf_counter() - start, time.process_time() - processor)


if __name__ == "__main__":
    sys.exit(main())
