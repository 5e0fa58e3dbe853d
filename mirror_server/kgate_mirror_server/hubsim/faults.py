"""What can go wrong between a Hub and its client, as values that change one answer.

Every fault applies to the bytes or the head of an answer; none of them changes what the simulator
holds, so the next answer without a fault is right again.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final, assert_never

from kgate_mirror_server.hubsim.content import CHUNK
from kgate_mirror_server.hubsim.wire import answer_error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kgate_mirror_server.hubsim.wire import Answer, Request

_FLIP: Final = 0xFF


@dataclass(frozen=True, slots=True)
class Corrupt:
    """The body's first byte is inverted; length and headers stay."""


@dataclass(frozen=True, slots=True)
class Short:
    """The announced length is right, but the connection ends `missing` bytes early."""

    missing: int = 1


@dataclass(frozen=True, slots=True)
class Resized:
    """The body is `by` bytes longer (zeros) or shorter than the tree says, and announced so."""

    by: int


@dataclass(frozen=True, slots=True)
class Endless:
    """The body has no announced length and never ends."""


@dataclass(frozen=True, slots=True)
class Slow:
    """The answer and each chunk of its body (64 KiB at most) come this many seconds late."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Status:
    """An error instead of the answer, such as 503, or 429 with `retry_after` seconds."""

    code: int
    message: str = "simulated failure"
    retry_after: int | None = None


Fault = Corrupt | Short | Resized | Endless | Slow | Status


@dataclass(slots=True)
class Injection:
    """A fault, where it strikes and how often it still will; `times` None means for ever."""

    fault: Fault
    path: str
    method: str
    times: int | None

    def strikes(self, request: Request) -> bool:
        """Tell whether this request meets the fault, and count it if so."""
        if self.times == 0 or not fnmatchcase(request.path, self.path):
            return False
        if self.method not in {"*", request.method}:
            return False
        if self.times is not None:
            self.times -= 1
        return True


def spoil(answer: Answer, fault: Fault) -> Answer:
    """Return the answer as the fault leaves it."""
    match fault:
        case Corrupt():
            return replace(answer, chunks=lambda: _corrupted(answer))
        case Short():
            kept = max(0, (answer.length or 0) - fault.missing)
            return replace(answer, chunks=lambda: _cut(answer, kept), keep_alive=False)
        case Resized():
            length = max(0, (answer.length or 0) + fault.by)
            return replace(answer, length=length, chunks=lambda: _cut(answer, length))
        case Endless():
            zeros = bytes(CHUNK)
            return replace(
                answer, length=None, chunks=lambda: itertools.repeat(zeros), keep_alive=False
            )
        case Slow():
            return replace(answer, delay=fault.seconds)
        case Status():
            failed = answer_error(fault.code, fault.message)
            if fault.retry_after is None:
                return failed
            return replace(
                failed, headers={**failed.headers, "Retry-After": str(fault.retry_after)}
            )
        case _:
            assert_never(fault)


def _corrupted(answer: Answer) -> Iterator[bytes]:
    chunks = answer.chunks()
    first = next(chunks, b"")
    if first:
        yield bytes([first[0] ^ _FLIP]) + first[1:]
    yield from chunks


def _cut(answer: Answer, length: int) -> Iterator[bytes]:
    """Yield `length` bytes: the body's own as far as they go, then zeros."""
    for chunk in answer.chunks():
        piece = chunk[:length]
        length -= len(piece)
        yield piece
        if not length:
            return
    while length:
        padding = bytes(min(CHUNK, length))
        length -= len(padding)
        yield padding
