"""Bounds how many silent connections one client address, and all together, may hold open (T21).

A thread of each worker looks at the worker's own sockets once a second and closes the most silent
of whoever holds too many; below the bounds it closes nothing. A connection over which something
moved lately is never closed. Linux only (tcp(7): TCP_INFO); what is asked over a connection is not
known here, and how fast somebody asks is `rate`'s.
"""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import struct
import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Final

import structlog

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kgate_mirror_server.serve.settings import Limits

LOOK: Final = 1.0  # seconds between two looks
SILENT: Final = 3.0  # seconds without a byte in either direction until a connection may be closed
SPARE: Final = 512  # descriptors for everything that is no client
_OPEN: Final = "/proc/self/fd"
_PAUSE: Final = 256  # sockets between two breaths, so that requests are not kept waiting
# struct tcp_info of linux/tcp.h: eight bytes of flags, then 32-bit numbers, of which the tenth is
# tcpi_last_data_sent and the twelfth tcpi_last_data_recv, both in milliseconds.
_INFO: Final = struct.Struct("=8x12I")
_log: Final = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Connection:
    """One client's connection, as the kernel describes it."""

    descriptor: int
    client: tuple[str, int]
    """Address and port."""
    silent: float
    """Seconds since a byte came or went."""


def most_connections() -> int:
    """Let this process open what the system allows, and return how many connections fit in."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return max(soft - SPARE, soft // 2)


def surplus(connections: Iterable[Connection], per_address: int, total: int) -> list[Connection]:
    """Return which connections to close: silent ones, the longest silent of each address first.

    First of every address that holds more than `per_address`; then, if `total` is still exceeded,
    of the addresses that hold the most.
    """
    silent: dict[str, list[Connection]] = defaultdict(list)
    held: dict[str, int] = defaultdict(int)
    for connection in connections:
        held[connection.client[0]] += 1
        if connection.silent >= SILENT:
            silent[connection.client[0]].append(connection)
    for found in silent.values():
        found.sort(key=lambda connection: connection.silent)
    closing: list[Connection] = []
    for address, found in silent.items():
        while found and held[address] > per_address:
            closing.append(found.pop())
            held[address] -= 1
    largest = [(-held[address], address) for address, found in silent.items() if found]
    heapify(largest)
    for _ in range(sum(held.values()) - total):
        if not largest:
            break
        count, address = heappop(largest)
        closing.append(silent[address].pop())
        if silent[address]:
            heappush(largest, (count + 1, address))
    return closing


class ConnectionBounds:
    """Watches the connections of this process to one port."""

    def __init__(self, port: int, limits: Limits, total: int) -> None:
        self._port = port
        self._per_address = limits.connections_per_address
        self._total = total

    def start(self) -> None:
        """Look once a second from a thread, for as long as the process lives."""
        threading.Thread(target=self._watch, name="kgate-connections", daemon=True).start()

    def look(self) -> int:
        """Close what is too much now; returns how many were closed."""
        if len(_descriptors()) < min(self._per_address, self._total):
            return 0
        closing = surplus(self._connections(), self._per_address, self._total)
        closed = sum(_close(connection) for connection in closing)
        if closed:
            addresses = {connection.client[0] for connection in closing}
            _log.warning("connections.closed", closed=closed, addresses=len(addresses))
        return closed

    def _watch(self) -> None:
        while True:
            time.sleep(LOOK)
            try:
                self.look()
            except OSError as exc:
                _log.error("connections.failed", reason=str(exc))

    def _connections(self) -> Iterator[Connection]:
        for number, descriptor in enumerate(_descriptors()):
            if number % _PAUSE == 0:
                time.sleep(0.001)
            with _opened(descriptor) as wire:
                found = _describe(descriptor, wire) if wire is not None else None
            if found is not None and found[0] == self._port:
                yield found[1]


def _descriptors() -> list[int]:
    return [int(name) for name in os.listdir(_OPEN)]  # noqa: PTH208  # names of numbers, thousands


@contextlib.contextmanager
def _opened(descriptor: int) -> Iterator[socket.socket | None]:
    """Hold a second descriptor of a socket, so that it stays the same one meanwhile."""
    wire = None
    with contextlib.suppress(OSError):  # closed since
        held = os.dup(descriptor)
        try:
            wire = socket.socket(fileno=held)
        except OSError:  # no socket
            os.close(held)
    if wire is None:
        yield None
        return
    with wire:
        yield wire


def _describe(descriptor: int, wire: socket.socket) -> tuple[int, Connection] | None:
    """Return the local port and the connection; None for what is no TCP connection."""
    try:
        if wire.family not in {socket.AF_INET, socket.AF_INET6}:
            return None
        client = wire.getpeername()[:2]
        info = wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size)
        port = int(wire.getsockname()[1])
    except OSError:  # listening, or gone
        return None
    if len(info) < _INFO.size:
        return None
    numbers = _INFO.unpack(info)
    return port, Connection(descriptor, client, min(numbers[9], numbers[11]) / 1000)


def _close(connection: Connection) -> bool:
    """End a connection if its descriptor still means it; the server then lets it go."""
    with _opened(connection.descriptor) as wire:
        if wire is None:
            return False
        try:
            if wire.getpeername()[:2] != connection.client:
                return False
            wire.shutdown(socket.SHUT_RDWR)
        except OSError:
            return False
    return True
