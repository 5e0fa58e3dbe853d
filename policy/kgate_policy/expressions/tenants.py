"""Asks tenants' policies in a child process that can be killed.

A tenant may write any expression that compiles. The engine has budgets of its own, but not for
everything: a few comparisons of long lists take seconds, and it holds the interpreter while it
runs. So the child has little memory and no files, and is killed when its time is over; then the
answer is no. What may be in a policy is checked by `reading`, what is asked by `running`.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Final, Self

from kgate_core.clock import write_time
from kgate_core.errors import KgateError
from kgate_core.evidence import Outcome, RuleResult
from kgate_policy.rules import NO_ANSWER

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from types import TracebackType

    from kgate_core.evidence import Facts
    from kgate_policy.expressions.model import ExpressionPolicy

_START: Final = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]);"
    "from kgate_policy.expressions.child import main; main(int(sys.argv[2]))"
)
_READY: Final = {"ready": True}
_MAX_ANSWER: Final = 4 * 1024**2  # bytes of one answer; a few hundred results are far less
_HINT: Final = "Make the policy simpler; try it with `kgate policy test`."


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """What the child may use."""

    seconds: float = 0.1
    """Wall clock for one policy, after it was compiled."""
    compile_seconds: float = 2.0
    """Wall clock for reading and compiling one policy that the child has not seen yet."""
    start_seconds: float = 20.0
    """Wall clock for starting the child on a busy machine."""
    memory: int = 512 * 1024**2
    """Bytes of address space."""


class TenantWorker:
    """One child process, started when first needed and again after it was killed.

    Not for use by several threads at once: give each its own.
    """

    def __init__(self, limits: WorkerLimits | None = None) -> None:
        self._limits = limits or WorkerLimits()
        self._child: subprocess.Popen[bytes] | None = None
        self._known: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the child, if there is one."""
        child, self._child = self._child, None
        self._known.clear()
        if child is None:
            return
        child.kill()
        child.wait()
        for stream in (child.stdin, child.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def judge(
        self,
        policies: Sequence[ExpressionPolicy],
        kernels: Sequence[Facts],
        *,
        now: datetime,
        surroundings: Mapping[str, Any] | None = None,
    ) -> tuple[RuleResult, ...]:
        """Ask every policy; a policy that fails or takes too long denies, and only that one."""
        question = {
            "kernels": list(kernels),
            "now": write_time(now),
            "surroundings": dict(surroundings or {}),
        }
        return tuple(result for policy in policies for result in self._ask(policy, question))

    def _ask(self, policy: ExpressionPolicy, question: Facts) -> tuple[RuleResult, ...]:
        digest = policy.digest.hex
        try:
            if digest not in self._known:
                text = policy.document.decode()
                self._exchange(
                    {"learn": digest, "document": text, "tenant": policy.tenant},
                    self._limits.compile_seconds,
                )
                self._known.add(digest)
            answer = self._exchange(question | {"ask": digest}, self._limits.seconds)
            return tuple(
                RuleResult(item["rule"], Outcome(item["outcome"]), item["seen"], item["hint"])
                for item in answer["results"]
            )
        except TimeoutError as exc:
            why = str(exc)
        except (OSError, ValueError, KeyError, TypeError, RecursionError, KgateError) as exc:
            why = f"the worker ended: {exc}"
        self.close()
        return (RuleResult(policy.name, Outcome.DENY, f"{NO_ANSWER}{why}", _HINT),)

    def _exchange(self, message: Facts, seconds: float) -> Facts:
        child = self._child or self._start()
        if child.stdin is None or child.stdout is None:
            raise OSError("the child has no pipes")
        child.stdin.write(json.dumps(message, allow_nan=False).encode() + b"\n")
        child.stdin.flush()
        answer = _read_line(child.stdout, seconds)
        if "error" in answer:
            raise ValueError(answer["error"])
        return answer

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-I", "-c", _START, json.dumps(sys.path)]
        self._known.clear()
        self._child = subprocess.Popen(  # noqa: S603  # our own interpreter and our own module
            [*command, str(self._limits.memory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={},
        )
        if self._child.stdout is None:
            raise OSError("the child has no pipes")
        if _read_line(self._child.stdout, self._limits.start_seconds) != _READY:
            raise OSError("the child did not start")
        return self._child


def _read_line(stream: IO[bytes], seconds: float) -> Facts:
    """Read one line of JSON within a time; raises TimeoutError, OSError and ValueError."""
    end = time.monotonic() + seconds
    data = b""
    descriptor = stream.fileno()
    while not data.endswith(b"\n"):
        left = end - time.monotonic()
        if left <= 0 or not select.select([descriptor], [], [], left)[0]:
            raise TimeoutError(f"stopped after {seconds * 1000:.0f} ms")
        chunk = os.read(descriptor, 65_536)
        if not chunk:
            raise OSError("it used more memory than allowed, or crashed")
        data += chunk
        if len(data) > _MAX_ANSWER:
            raise ValueError("its answer is too long")
    answer: Facts = json.loads(data)
    return answer
