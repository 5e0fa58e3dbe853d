"""The judge's program: reads one order from standard input, writes one result to standard output.

    python -P -m kgate_client.qualify.judge

It starts the workers, and nothing of the kernel is ever imported here. It gets no secrets and
writes no files; the command that started it does.
"""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from typing import Any

from kgate_client.qualify.casefile import CaseFile
from kgate_client.qualify.confinement import harden
from kgate_client.qualify.handle import Gone, Worker
from kgate_client.qualify.host import facts_of
from kgate_client.qualify.judging import Judge, speedup_of
from kgate_core.errors import KgateError


def main() -> None:
    """Judge one kernel."""
    harden()
    order = json.loads(sys.stdin.buffer.read())
    # Whatever torch or a reference prints goes elsewhere: standard output is the result's.
    result = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        answer = judge(order)
    except KgateError as exc:
        answer = {"error": exc.message, "hint": exc.hint}
    with result:
        result.write(json.dumps(answer).encode())


def judge(order: Any) -> dict[str, Any]:  # noqa: ANN401  # JSON from the command
    """Run what the order says and return what was seen; raises InvalidInput for bad cases."""
    cases = CaseFile.parse(order["cases"].encode()).cases
    environment, worker = order["environment"], order["worker"]
    start = partial(Worker, environment=environment, seconds=order["seconds"])
    candidate = start(worker)
    said: dict[str, Any] = {"confined": [], "tried": [], "timed": [], "problem": ""}
    try:
        said["confined"] = list(candidate.confined())
        said["host"] = facts_of(worker["device"])
        candidate.loaded()
        run = Judge(cases, worker["device"], candidate, partial(start, {**worker, "root": ""}))
        said["freshSeed"] = run.fresh
        tried = run.check()
        said["tried"] = [item.to_json() for item in tried]
        if order["speed"] and not any(item.why for item in tried):
            timed, said["problem"] = run.measure()
            said["timed"] = [item.to_json() for item in timed]
            said["speedupPpm"] = speedup_of(timed)
    except Gone as exc:
        said["problem"] = exc.message
    finally:
        candidate.close()
    return said


if __name__ == "__main__":
    main()
