"""Runs the parsers in a child process that has nothing to steal and cannot run for ever.

The child gets one socket, an empty environment, limits on memory and processor time and, where
the kernel permits, a sandbox (see `sandbox`). Files reach it as open descriptors, one at a time.
Whatever happens to it - crash, endless loop, memory, nonsense as an answer - becomes a finding
`KG-SCAN-001` of an incomplete scan, never an exception here. It does not decide what to scan.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import struct
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self

from kgate_core import strictjson
from kgate_core.errors import InvalidInput
from kgate_core.evidence import Facts, Finding
from kgate_scanner import rules_files as rules

if TYPE_CHECKING:
    from types import TracebackType

_log = logging.getLogger(__name__)

_BOOT: Final = (
    "import sys; sys.path[:] = sys.argv[5:]; "
    "from kgate_scanner import worker; worker.main(*map(int, sys.argv[1:5]))"
)
_LENGTH: Final = struct.Struct(">Q")
_ELF: Final = b"\x7fELF"
_READ: Final = 1 << 20  # bytes per receive
_MEMORY: Final = {"MALLOC_MMAP_THRESHOLD_": str(1 << 20), "MALLOC_ARENA_MAX": "1"}
"""Of glibc: what an image expanded to goes back to the system at once, not into a pool for more."""


@dataclass(frozen=True, slots=True)
class ScanLimits:
    """How much one scan may cost; beyond it the scan is incomplete and says so."""

    file_seconds: float = 300.0
    """Wall time for one file."""
    start_seconds: float = 60.0
    """Wall time until a child has started."""
    cpu_seconds: int = 3600
    """Processor time of one child over all its files."""
    memory_bytes: int = 3 * 1024**3
    """Address space of a child beside the file it reads."""
    file_bytes: int = 8 * 1024**3
    """Larger files are not read."""
    answer_bytes: int = 128 * 1024**2
    """Longest answer about one file."""
    findings: int = 500
    """Findings kept per file."""


@dataclass(frozen=True, slots=True)
class Inspected:
    """What the parsers said about one file."""

    facts: Facts
    findings: tuple[Finding, ...] = ()
    complete: bool = True


@dataclass(slots=True)
class ParserProcess:
    """A child process that answers for one file after another and is replaced when it dies."""

    limits: ScanLimits
    largest: int
    """Bytes of the largest file that will be asked about; the child may map it once."""
    system: str | None = "linux"
    """The operating system that the variant is for, None if unknown."""
    libraries: bool = False
    """Load the parser of host code; turned on by the first ELF file, at the price of a restart."""
    _child: subprocess.Popen[bytes] | None = None
    _channel: socket.socket | None = None
    _layers: frozenset[str] = field(default_factory=frozenset)

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
        """End the child."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None

    @property
    def pid(self) -> int | None:
        """The process id of the child while there is one."""
        return None if self._child is None else self._child.pid

    def inspect(self, descriptor: int, path: str) -> Inspected:
        """Ask about one file given by an open descriptor; never raises for what is in it."""
        try:
            if not self.libraries and os.pread(descriptor, len(_ELF), 0) == _ELF:
                self.close()
                self.libraries = True
            channel = self._ready()
            request = strictjson.dumps({"path": path, "system": self.system})
            _send(channel, request, descriptor, time.monotonic() + self.limits.file_seconds)
            answer = _receive(
                channel,
                self.limits.answer_bytes,
                time.monotonic() + self.limits.file_seconds,
            )
            document = strictjson.loads(answer, what="parser", max_bytes=len(answer))
            return read_answer(document, path, self.limits.findings)
        except TimeoutError:
            why = f"took longer than {self.limits.file_seconds:g} seconds"
        except _NonsenseError as exc:
            why = f"gave an answer that cannot be used ({exc})"
        except InvalidInput as exc:
            why = f"gave an answer that cannot be used ({exc.message})"
        except (EOFError, OSError):
            why = f"stopped {self._ending()}"
        self.close()
        return gave_up(path, f"the parser {why}")

    def _ready(self) -> socket.socket:
        if self._channel is not None:
            return self._channel
        ours, theirs = socket.socketpair()
        with theirs:
            numbers = (
                theirs.fileno(),
                self.limits.memory_bytes + 2 * self.largest,
                self.limits.cpu_seconds,
                int(self.libraries),
            )
            paths = [entry for entry in sys.path if entry]
            # -I -S: neither the environment, the directory nor any .pth file has a say.
            self._child = subprocess.Popen(  # noqa: S603  # our own interpreter and a fixed program
                [sys.executable, "-I", "-S", "-B", "-c", _BOOT, *map(str, numbers), *paths],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=_MEMORY,
                cwd="/",
                pass_fds=[theirs.fileno()],
            )
        self._channel = ours
        deadline = time.monotonic() + self.limits.start_seconds
        hello = strictjson.loads(_receive(ours, _READ, deadline), what="parser")
        self._layers = frozenset(strictjson.take_strings(hello, "layers", what="parser"))
        if not {"seccomp", "landlock"} & self._layers:
            _log.warning("the scanner's parser process is not sandboxed: the kernel permits none")
        return ours

    def _ending(self) -> str:
        if self._child is None:
            return "before it started"
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self._child.wait(timeout=5)
            return f"by signal {-code}" if code < 0 else f"with status {code}"
        return "answering"


def gave_up(path: str, why: str) -> Inspected:
    """Return what is known about a file that the parsers did not finish."""
    return Inspected({}, (rules.GAVE_UP.finding(path, why),), complete=False)


class _NonsenseError(Exception):
    """The child did not keep to the protocol."""


def read_answer(document: strictjson.JsonValue, path: str, most: int) -> Inspected:
    """Return what an answer about one file says; raises InvalidInput.

    A parser that was taken over can say anything: its answer is read as strictly as a document
    from outside, and it speaks about the file it was asked about only.
    """
    what = "parser"
    facts = strictjson.take(document, "facts", dict, what=what)
    complete = strictjson.take(document, "complete", bool, what=what)
    findings = tuple(
        Finding.from_json(item) for item in strictjson.take(document, "findings", list, what=what)
    )
    if any(finding.path != path for finding in findings):
        raise InvalidInput("it speaks about another file")
    if len(findings) > most:
        worst = sorted(findings, key=lambda finding: -finding.severity)[:most]
        dropped = rules.TOO_MANY.finding(path, f"{len(findings)} findings, {most} are kept")
        return Inspected(facts, (*worst, dropped), complete)
    return Inspected(facts, findings, complete)


def _send(channel: socket.socket, data: bytes, descriptor: int, deadline: float) -> None:
    channel.settimeout(max(0.0, deadline - time.monotonic()) or None)
    socket.send_fds(channel, [_LENGTH.pack(len(data))], [descriptor])
    channel.sendall(data)


def _receive(channel: socket.socket, most: int, deadline: float) -> bytes:
    (length,) = _LENGTH.unpack(_exactly(channel, _LENGTH.size, deadline))
    if length > most:
        raise _NonsenseError(f"{length} bytes are more than the {most} allowed")
    return _exactly(channel, length, deadline)


def _exactly(channel: socket.socket, size: int, deadline: float) -> bytes:
    received = bytearray()
    while len(received) < size:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        channel.settimeout(left)
        chunk = channel.recv(min(_READ, size - len(received)))
        if not chunk:
            raise EOFError
        received += chunk
    return bytes(received)


def open_descriptor(content: memoryview) -> int:
    """Return a read-only descriptor of bytes in memory; raises OSError."""
    descriptor = os.memfd_create("kgate-scan", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    view = content.cast("B")
    while view:
        view = view[os.write(descriptor, view) :]
    return descriptor
