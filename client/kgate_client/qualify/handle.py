"""The judge's hold on one worker: starts it, gives it a batch, keeps the time, stops it.

The time of a batch runs from the moment at which the worker may first see its inputs to the moment
at which it says it is done; then it is stopped until its next batch, with all that it started: so
nothing is computed afterwards, and nothing slows the fallback down. The clock is this process's.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kgate_client.qualify.confinement import SIGNALLED
from kgate_client.qualify.wire import Wire
from kgate_core.errors import KgateError, UpstreamError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kgate_client.qualify.casefile import Case
    from kgate_client.qualify.layout import Layout

START_SECONDS: Final = 300.0  # for importing torch and the kernel, its first compilation included
_SEALS: Final = 0x0002 | 0x0004 | 0x0001  # F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_SEAL
STOP_SECONDS: Final = 30.0  # until a busy machine has stopped a process
_PAUSE: Final = 0.001  # seconds between two looks
_MAX_PROCESSES: Final = 1000
_MAX_WHY: Final = 400  # characters


@dataclass(frozen=True, slots=True)
class Ran:
    """What a batch left behind."""

    nanoseconds: int
    """From the first sight of the inputs to the end, by the judge's clock."""
    said: int
    """What the worker says that it took; believed of the fallback only."""
    memory: bytes
    """All of the region afterwards."""
    aliased: bool
    """Whether the function returned a view of its inputs."""
    peak: int | None
    """Bytes of memory that it needed besides the region, if the system says so."""


class Gone(KgateError):  # noqa: N818  # a state of the worker, said in one word
    """The worker crashed or hung; there is nothing more to hear from it."""


class Failed(KgateError):  # noqa: N818  # as above
    """The kernel raised an error; the next batch may be tried all the same."""


class Worker:
    """One process that runs a kernel, or the fallback if no root is given."""

    def __init__(
        self, order: Mapping[str, Any], environment: Mapping[str, str], seconds: float
    ) -> None:
        """Start it; `order` names root, manifest, name, package and scratch."""
        self._seconds = seconds
        self._device = order["device"]
        self._fallback = not order["root"]
        here, there = socket.socketpair()
        with there:
            self._process = subprocess.Popen(  # noqa: S603  # this very interpreter
                [sys.executable, "-P", "-m", "kgate_client.qualify.worker", str(there.fileno())],
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[there.fileno()],
                start_new_session=True,
            )
        self._wire = Wire(here)
        self._wire.send(dict(order))

    def confined(self) -> tuple[str, ...]:
        """Return which layers of confinement hold; said before the kernel runs. Raises Gone."""
        return tuple(map(str, self._hear(START_SECONDS)["confined"]))

    def loaded(self) -> None:
        """Wait until the kernel is imported; raises Gone if it is not."""
        answer = self._hear(START_SECONDS)
        if answer.get("loaded") is not True:
            raise Gone(f"it cannot be loaded: {str(answer.get('why'))[:_MAX_WHY]}")
        self._stop_all()

    def run(self, case: Case, dtype: str, layout: Layout, filled: bytes | bytearray) -> Ran:
        """Run one batch over a region that begins as `filled`; raises Gone, Failed."""
        region = os.memfd_create("kgate-qualify", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(region, layout.size)
            # A region that shrinks would kill whoever looks at it.
            fcntl.fcntl(region, fcntl.F_ADD_SEALS, _SEALS)
            with mmap.mmap(region, layout.size) as memory:
                memory[:] = filled
                order = {
                    "function": case.reference if self._fallback else case.function,
                    "dtype": dtype,
                    "device": self._device,
                    "size": layout.size,
                    "slots": [
                        {name: slot.to_json() for name, slot in item.items()}
                        for item in layout.slots
                    ],
                    "call": list(case.asked if self._fallback else case.call),
                    "output": case.output,
                    "returned": case.returned,
                }
                before = self._resident(reset=True)
                self._signal_all(signal.SIGCONT)
                begin = time.perf_counter_ns()
                try:
                    self._wire.send(order, region)
                except UpstreamError:
                    raise Gone(self._end()) from None
                answer = self._hear(self._seconds)
                self._signal(signal.SIGSTOP)
                spent = time.perf_counter_ns() - begin
                after = bytes(memory)
        finally:
            os.close(region)
        self._stop_all()
        peak = self._resident(reset=False)
        if answer.get("done") is not True:
            raise Failed(f"it failed: {str(answer.get('why'))[:_MAX_WHY]}")
        said = answer.get("nanoseconds")
        # What it shares with the judge is none of its own: the tensors that it touches.
        shared = sum(
            slot.size
            for item in layout.slots
            for name, slot in item.items()
            if name != case.output or case.returned or not self._fallback
        )
        needed = None if peak is None or before is None else max(0, peak - before - shared)
        return Ran(
            spent,
            said if type(said) is int and 0 < said <= spent else spent,
            after,
            answer.get("aliased") is True,
            needed,
        )

    def close(self) -> None:
        """Kill it and all that it started in its session."""
        self._wire.close()
        self._signal_all(signal.SIGKILL)
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _hear(self, seconds: float) -> dict[str, Any]:
        try:
            answer, descriptor = self._wire.receive(seconds)
        except TimeoutError:
            self.close()
            raise Gone(f"it gave no answer in {seconds:.0f} seconds") from None
        except UpstreamError:
            raise Gone(self._end()) from None
        if descriptor is not None:
            os.close(descriptor)
        return answer

    def _end(self) -> str:
        """Return how the process ended."""
        try:
            code = self._process.wait(5)
        except subprocess.TimeoutExpired:
            self.close()
            return "it hung up"
        number = -code if code < 0 else code - SIGNALLED
        with contextlib.suppress(ValueError):
            return f"it crashed ({signal.Signals(number).name})"
        return f"it ended with code {code}"

    def _signal(self, number: signal.Signals) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(OSError):
                os.killpg(self._process.pid, number)

    def _signal_all(self, number: signal.Signals) -> None:
        """Signal every descendant, also those that left the session."""
        for pid in self.descendants():
            with contextlib.suppress(OSError):
                os.kill(pid, number)

    def _stop_all(self) -> None:
        """Stop every descendant and wait until all of them stand; raises Gone if one does not."""
        until = time.monotonic() + STOP_SECONDS
        while time.monotonic() < until:
            self._signal_all(signal.SIGSTOP)
            if all(map(_stands, self.descendants())):
                return
            time.sleep(_PAUSE)
        self.close()
        raise Gone("it cannot be stopped")

    def descendants(self) -> tuple[int, ...]:
        """Return the process and all that it started, as far as they still belong to it."""
        found: list[int] = []
        # Once it was waited for, its number may be somebody else's.
        queue = [self._process.pid] if self._process.returncode is None else []
        while queue and len(found) < _MAX_PROCESSES:
            found.append(pid := queue.pop())
            with contextlib.suppress(OSError, ValueError):
                for task in Path(f"/proc/{pid}/task").iterdir():
                    text = (task / "children").read_text(encoding="ascii")
                    queue += map(int, text.split())
        return tuple(sorted(found))

    def _resident(self, *, reset: bool) -> int | None:
        """Return the resident bytes, the highest since the last reset otherwise."""
        pid = self._process.pid
        field = "VmRSS:" if reset else "VmHWM:"
        with contextlib.suppress(OSError, ValueError, IndexError):
            inner = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
            place = Path(f"/proc/{inner[0] if inner else pid}")
            if reset:
                (place / "clear_refs").write_text("5", encoding="ascii")
            for line in (place / "status").read_text(encoding="utf-8").splitlines():
                if line.startswith(field):
                    return int(line.split()[1]) * 1024
        return None


def _stands(pid: int) -> bool:
    """Return whether a process is stopped, or gone."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return True
    return state in {"T", "t", "Z", "X"}
