"""A coverage-guided fuzz campaign over every reader, one process each, with a growing corpus.

    python -m tests.fuzz.campaign --seconds 1800 --corpus corpus/

gives each reader its share of the time and prints what libFuzzer counted. An input that raises,
takes more than five seconds or needs more than a GiB ends the reader's run and is left in the
corpus folder as `crash-…`, `timeout-…` or `oom-…`. `--merge` keeps only what reaches new code.
The campaign needs the package `atheris`; the short runs in the test suite do not.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

RSS_LIMIT_MB: Final = 1024
MAX_INPUT: Final = 16 * 1024  # bytes; larger files only repeat structures
ONE_INPUT_SECONDS: Final = 5
GRACE_SECONDS: Final = 60
NAMES: Final = (
    *("elf", "cuda", "amd", "sycl", "hidden", "metal"),
    *("host", "python", "metadata", "cache", "kind"),
)
_COUNTED = re.compile(rb"stat::(\w+):\s+(\d+)")
_COVERAGE = re.compile(rb"cov: (\d+) ft: (\d+) corp: (\d+)")


def fuzz_one(name: str, arguments: list[str]) -> None:
    """Fuzz one reader in this process; libFuzzer ends the process."""
    import atheris  # a tool of the campaign alone

    with atheris.instrument_imports(include=["kgate_scanner", "kgate_core"]):
        from tests.fuzz.readers import READERS  # instrumented while imported
    # libFuzzer starts itself again to merge: its first argument has to be a command that works.
    again = f"{sys.executable} -m tests.fuzz.campaign --one {name} --"
    atheris.Setup([again, *arguments], READERS[name].read)
    atheris.Fuzz()


def write_seeds(corpus: Path) -> None:
    """Lay the hand-made seeds of every reader into its folder."""
    from tests.fuzz.readers import READERS  # the parent needs no instrumentation

    assert set(READERS) == set(NAMES)
    for name, reader in READERS.items():
        folder = corpus / name
        folder.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(reader.seeds):
            (folder / f"seed-{number}").write_bytes(seed)


def run_one(name: str, corpus: Path, seconds: int) -> dict[str, object]:
    """Fuzz one reader in a child; return its figures."""
    folder = corpus / name
    child = subprocess.run(
        [
            *(sys.executable, "-m", "tests.fuzz.campaign", "--one", name),
            *("--", str(folder), f"-max_total_time={seconds}", f"-max_len={MAX_INPUT}"),
            *(f"-timeout={ONE_INPUT_SECONDS}", f"-rss_limit_mb={RSS_LIMIT_MB}"),
            *(f"-artifact_prefix={corpus}/{name}-", "-print_final_stats=1"),
        ],
        stderr=subprocess.PIPE,
        timeout=seconds + GRACE_SECONDS,
        check=False,
    )
    counted = {key.decode(): int(value) for key, value in _COUNTED.findall(child.stderr)}
    coverage = _COVERAGE.findall(child.stderr)
    return {
        "reader": name,
        "failed": child.returncode != 0,
        "inputs": counted.get("number_of_executed_units", 0),
        "peak_rss_mb": counted.get("peak_rss_mb", 0),
        "features": int(coverage[-1][1]) if coverage else 0,
        "corpus": int(coverage[-1][2]) if coverage else 0,
        "last": child.stderr[-2000:].decode(errors="replace") if child.returncode else "",
    }


def merge(name: str, source: Path, target: Path) -> None:
    """Keep of a corpus only the inputs that reach something new."""
    folder = target / name
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        [
            *(sys.executable, "-m", "tests.fuzz.campaign", "--one", name),
            *("--", "-merge=1", str(folder), str(source / name)),
        ],
        stderr=subprocess.DEVNULL,
        check=True,
    )


def main() -> int:
    """Run from the command line; exit 1 if any reader failed."""
    parser = argparse.ArgumentParser(description="coverage-guided fuzzing of every reader")
    parser.add_argument("--seconds", type=int, default=1800, help="for all readers together")
    parser.add_argument("--corpus", type=Path, default=Path("fuzz-corpus"))
    parser.add_argument("--only", choices=NAMES, action="append", help="may be repeated")
    parser.add_argument("--merge", type=Path, metavar="DIR", help="only merge into DIR")
    parser.add_argument("--one", choices=NAMES, help=argparse.SUPPRESS)
    parser.add_argument("rest", nargs="*", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        fuzz_one(asked.one, asked.rest)
    names = asked.only or NAMES
    if asked.merge:
        for name in names:
            merge(name, asked.corpus, asked.merge)
        return 0
    write_seeds(asked.corpus)
    failed = False
    for name in names:
        figures = run_one(name, asked.corpus, max(1, asked.seconds // len(names)))
        failed = failed or bool(figures["failed"])
        print(json.dumps(figures), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
