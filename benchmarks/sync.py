"""How long a cold sync takes beside `hf download` of the same files, and what a warm one asks.

One kernel from a Hub simulator on loopback, several variants, each with a large library. Rounds are
taken in turns; the ratio is of the medians. kgate fetches, verifies and stores (`kgate lock` and
the fetching half of `kgate sync`); scanning, deciding and signing are timed by `benchmarks/scan.py`
and shown here beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[1]))

if TYPE_CHECKING:
    from kgate_mirror_server.hubsim import HubSimulator


REPO = "acme/big"
VARIANTS = ("torch213-cxx11-cu126-x86_64-linux", "torch213-cxx11-cu130-x86_64-linux")
LIBRARY = 150 * 1024 * 1024  # bytes of each library
SMALL = 20  # files of each variant besides
ROUNDS = 3


def main() -> None:
    from kgate_mirror_server.hubsim import serve_folder

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="accepted: the last line always is")
    parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kgate-sync-") as name:
        root = Path(name)
        build(root / "hub" / REPO)
        with serve_folder(root / "hub") as hub:
            ours, theirs = [], []
            for number in range(ROUNDS):
                theirs.append(download(hub.url, root / f"hf{number}"))
                ours.append(fetch(hub.url, root / f"site{number}"))
                print(f"kgate {ours[-1]:.2f} s, hf {theirs[-1]:.2f} s", file=sys.stderr, flush=True)
            requests = noop_requests(hub, root)
    total = LIBRARY * len(VARIANTS)
    print(
        json.dumps(
            {
                "cold_time_ratio": round(statistics.median(ours) / statistics.median(theirs), 3),
                "kgate_s": round(statistics.median(ours), 2),
                "hf_s": round(statistics.median(theirs), 2),
                "megabytes": round(total / 1e6),
                "noop_requests_per_pin": requests,
            }
        )
    )


def build(repo: Path) -> None:
    """Write a kernel with large libraries, properly digested."""
    from kgate_mirror_server.examples.metadata import digest_of

    for number, name in enumerate(VARIANTS):
        variant = repo / "v1" / "build" / name
        variant.mkdir(parents=True)
        for index in range(SMALL):
            (variant / f"part{index:02}.py").write_text(f"PART = {index}\n", encoding="utf-8")
        (variant / "__init__.py").write_text(f"ANSWER = {number}\n", encoding="utf-8")
        with (variant / "_big.abi3.so").open("wb") as library:
            for _ in range(LIBRARY // (1024 * 1024)):
                library.write(os.urandom(1024 * 1024))
        document = {"name": "big", "id": "_big_1", "version": 1, "license": "MIT"}
        document |= {"python-depends": [], "backend": {"type": "cuda"}}
        path = variant / "metadata.json"
        path.write_text(json.dumps(document), encoding="utf-8")
        path.write_text(json.dumps({**document, "digest": digest_of(variant)}), encoding="utf-8")


def download(url: str, home: Path) -> float:
    """Let `hf download` fetch the repository into an empty cache; return seconds."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": url,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    hf = str(Path(sys.executable).with_name("hf"))
    start = time.monotonic()
    subprocess.run(
        [hf, "download", REPO, "--repo-type", "kernel", "--revision", "v1"],
        env=environment,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    seconds = time.monotonic() - start
    shutil.rmtree(home)
    return seconds


def fetch(url: str, folder: Path) -> float:
    """Fetch, verify and store with kgate, in a process of its own; return seconds."""
    from tests.ingestkit import make_site

    site = make_site(folder, url)
    site.pin(f"repo: {REPO}, version: 1")
    start = time.monotonic()
    subprocess.run([sys.executable, __file__, "fetch", str(folder)], check=True)
    seconds = time.monotonic() - start
    shutil.rmtree(folder)
    return seconds


def fetch_only(folder: Path) -> None:
    """Do what a sync does before it scans, with nothing else imported."""
    from kgate_mirror_server.ingest.fetch import fetch_ahead
    from kgate_mirror_server.ingest.resolve import Source
    from kgate_mirror_server.settings.site import load_config
    from kgate_mirror_server.store.disk import DiskStore
    from kgate_mirror_server.upstream import open_upstream

    config = load_config(folder / "kgate.yaml")
    store = DiskStore(config.path(config.store))
    source = Source(open_upstream(config, config.upstream), store, lambda _count: None)
    for pin in config.kernels:
        commit = source.commit(pin)
        described = source.describe(pin, commit).values()
        fetch_ahead(source.upstream, store, pin.ref, commit, described, source.progress)
        if not all(store.has(file.digest) for item in described for file in item.files):
            raise SystemExit("not everything came")


def noop_requests(hub: HubSimulator, root: Path) -> float:
    """Return how many requests a sync makes for each pin when nothing has changed."""
    from kgate_mirror_server.examples.metadata import digest_of
    from tests.ingestkit import make_site

    small = root / "small"
    small.mkdir()
    site = make_site(small / "site", hub.url)
    pins = 5
    for number in range(pins):
        folder = small / f"kernel{number}"
        variant = folder / "build" / "torch-cpu"
        variant.mkdir(parents=True)
        (variant / "__init__.py").write_text(f"ANSWER = {number}\n", encoding="utf-8")
        document = {"name": "small", "id": f"_small_{number}", "version": 1, "license": "MIT"}
        path = variant / "metadata.json"
        path.write_text(json.dumps(document), encoding="utf-8")
        path.write_text(json.dumps({**document, "digest": digest_of(variant)}), encoding="utf-8")
        hub.publish(f"acme/small{number}", folder)
    site.pin(*(f"repo: acme/small{number}, version: 1" for number in range(pins)))
    site.sync()
    hub.forget_requests()
    result = site.sync()
    if any(kernel.fresh and kernel.served for kernel in result.kernels) or result.failures:
        raise SystemExit("the second sync found something to do")
    return hub.count() / pins


if __name__ == "__main__":
    if sys.argv[1:2] == ["fetch"]:
        fetch_only(Path(sys.argv[2]))
    else:
        main()
