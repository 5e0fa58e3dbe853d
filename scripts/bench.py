"""Runs every benchmark and writes benchmarks/RESULTS.md: `scripts/bench.py [NAME…]`.

A benchmark is a program in benchmarks/ that prints one JSON object as its last line, within five
minutes; its figures are ratios taken in that same run, because machines differ. One that fails is
named in the results and makes the exit code 1. Benchmarks are not tests: none has a threshold here.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).parents[1] / "benchmarks"
LIMIT: Final = 300  # seconds for one benchmark


def main() -> int:
    """Run the named benchmarks, or all; return the exit code."""
    scripts = [path for path in sorted(FOLDER.glob("*.py")) if path.stem != "__init__"]
    if names := set(sys.argv[1:]):
        scripts = [path for path in scripts if path.stem in names]
    if not scripts:
        print("There are no benchmarks yet." if not sys.argv[1:] else "There is no such benchmark.")
        return 1 if sys.argv[1:] else 0
    results = {path.stem: run(path) for path in scripts}
    machine = f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}"
    lines = ["# Results of `make bench`", "", f"Machine: {machine}", ""]
    for name, figures in results.items():
        lines += [f"## {name}", "", "| figure | value |", "|---|---|"]
        lines += [f"| `{key}` | {value} |" for key, value in figures.items()]
        lines.append("")
    (FOLDER / "RESULTS.md").write_text("\n".join(lines), encoding="utf-8")
    return 1 if any("failed" in figures for figures in results.values()) else 0


def run(script: Path) -> dict[str, Any]:
    """Return a benchmark's figures, or why there are none."""
    print(f"== {script.stem}", flush=True)
    try:
        result = subprocess.run(  # noqa: S603  # a program of this repository
            [sys.executable, script],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=LIMIT,
        )
        last = result.stdout.strip().splitlines()[-1]
        print(last, flush=True)
        figures: dict[str, Any] = json.loads(last)
    except subprocess.TimeoutExpired:
        return {"failed": f"took more than {LIMIT} seconds"}
    except subprocess.CalledProcessError as exc:
        return {"failed": f"exit code {exc.returncode}"}
    except (IndexError, ValueError):
        return {"failed": "its last line is not a JSON object"}
    return figures


if __name__ == "__main__":
    sys.exit(main())
