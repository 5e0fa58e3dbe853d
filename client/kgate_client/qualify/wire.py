"""Short JSON messages over a socket pair, with descriptors beside them and a deadline.

Whoever listens bounds what it reads: the other side may run anybody's code. Tensors never travel
here; they lie in shared memory.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from typing import Any, Final

from kgate_core.errors import UpstreamError

MAX_MESSAGE: Final = 4 * 1024**2  # bytes
_CHUNK: Final = 64 * 1024


class Wire:
    """One end of the pair."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._rest = bytearray()

    def send(self, message: dict[str, Any], descriptor: int | None = None) -> None:
        """Send a message; raises UpstreamError if nobody listens any more."""
        data = memoryview(json.dumps(message).encode() + b"\n")
        try:
            if descriptor is not None:
                sent = socket.send_fds(self._end, [data], [descriptor])
                data = data[sent:]
            self._end.sendall(data)
        except OSError as exc:
            raise UpstreamError(f"the other process is gone ({exc})") from exc

    def receive(self, seconds: float | None) -> tuple[dict[str, Any], int | None]:
        """Return the next message and the descriptor that came with it.

        Raises TimeoutError, and UpstreamError if the other side ended or talks nonsense.
        """
        until = None if seconds is None else time.monotonic() + seconds
        descriptor = None
        while b"\n" not in self._rest:
            self._end.settimeout(None if until is None else max(until - time.monotonic(), 1e-3))
            try:
                data, descriptors, _, _ = socket.recv_fds(self._end, _CHUNK, 4)
            except TimeoutError:
                raise
            except OSError as exc:
                raise UpstreamError(f"the other process is gone ({exc})") from exc
            for number in descriptors:
                if descriptor is not None:
                    with contextlib.suppress(OSError):
                        os.close(descriptor)
                descriptor = number
            self._rest += data
            if not data or len(self._rest) > MAX_MESSAGE:
                raise UpstreamError("the other process ended, or said more than it may")
        line, _, rest = bytes(self._rest).partition(b"\n")
        self._rest = bytearray(rest)
        try:
            message = json.loads(line)
        except ValueError as exc:
            raise UpstreamError("the other process talks nonsense") from exc
        if not isinstance(message, dict):
            raise UpstreamError("the other process talks nonsense")
        return message, descriptor

    def close(self) -> None:
        """Hang up."""
        self._end.close()
