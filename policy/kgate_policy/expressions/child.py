"""The child process in which tenants' policies run: reads questions, writes answers, line by line.

It gives up its rights before it reads the first byte: address space is capped, no file can be
opened for writing or grow, no core is dumped. The parent keeps the time.
"""

from __future__ import annotations

import json
import resource
import sys
from typing import TYPE_CHECKING, Any

from kgate_core.clock import read_time
from kgate_core.errors import KgateError
from kgate_policy.cel.engine import Wanted, environment
from kgate_policy.expressions.reading import read_expressions
from kgate_policy.expressions.running import judge
from kgate_policy.located import read_document

if TYPE_CHECKING:
    from kgate_core.evidence import Facts
    from kgate_policy.expressions.model import ExpressionPolicy


def main(memory: int) -> None:
    """Serve questions from standard input until it closes; `memory` is in bytes."""
    _preload()
    for limit, value in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        # No new descriptor can be opened: those that are needed are open.
        (resource.RLIMIT_NOFILE, 3),
    ):
        resource.setrlimit(limit, (value, value))
    known: dict[str, ExpressionPolicy] = {}
    _write({"ready": True})
    for line in sys.stdin.buffer:
        try:
            answer = _serve(json.loads(line), known)
        except KgateError as exc:
            answer = {"error": exc.message}
        except Exception as exc:  # noqa: BLE001  # the parent turns every error into a no
            answer = {"error": f"{type(exc).__name__}: {exc}"}
        _write(answer)


def _preload() -> None:
    """Import what is otherwise imported on first use, when no file can be opened any more."""
    read_time("2026-01-01T00:00:00Z", what="now")
    environment().compile("[1].all(x, x == 1)", wanted=Wanted.BOOL)


def _serve(message: Any, known: dict[str, ExpressionPolicy]) -> Facts:  # noqa: ANN401
    if "learn" in message:
        document = read_document(message["document"].encode(), source=message["tenant"])
        known[message["learn"]] = read_expressions(document, tenant=message["tenant"])
        return {"learnt": message["learn"]}
    results = judge(
        known[message["ask"]],
        message["kernels"],
        now=read_time(message["now"], what="now"),
        surroundings=message["surroundings"],
    )
    return {"results": [result.to_json() for result in results]}


def _write(answer: Facts) -> None:
    sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
    sys.stdout.buffer.flush()
