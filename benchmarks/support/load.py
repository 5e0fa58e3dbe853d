"""A light HTTP/1.1 load client: many connections, bodies counted and thrown away.

It runs in a process of its own, so that it shares no interpreter with a server, and parses no
more of a response than its length: what is measured is the server.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import re
import time
from dataclasses import dataclass
from typing import Any

import uvloop

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
CHUNK = 4 * 1024 * 1024  # bytes per read


@dataclass(frozen=True)
class Result:
    """What one run saw."""

    requests: int
    size: int
    """Bytes of bodies."""
    seconds: float
    errors: int
    latencies: list[float]
    """Seconds for each request (or sequence of requests), sorted."""

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds

    @property
    def throughput(self) -> float:
        """Megabytes of bodies per second."""
        return self.size / self.seconds / 1e6

    def quantile(self, share: float) -> float:
        """Return the latency that this share of requests did not exceed."""
        return self.latencies[min(len(self.latencies) - 1, int(len(self.latencies) * share))]


@dataclass(frozen=True)
class Ask:
    """One request: path, method and extra headers."""

    path: str
    method: str = "GET"
    headers: tuple[tuple[str, str], ...] = ()

    def encode(self) -> bytes:
        """Return the bytes to send."""
        lines = [f"{self.method} {self.path} HTTP/1.1", "Host: 127.0.0.1"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


def hammer(port: int, asks: list[Ask], connections: int, seconds: float) -> Result:
    """Repeat the requests over so many connections for so long."""
    return _apart(_hammer, port, asks, connections, seconds)


def storm(port: int, asks: list[Ask], clients: int) -> Result:
    """Let so many clients begin at once, each going through all requests one time."""
    return _apart(_storm, port, asks, clients)


def _apart(work: Any, *arguments: Any) -> Result:
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(sender, work, arguments))
    process.start()
    sender.close()
    result: Result = receiver.recv()
    process.join()
    return result


def _child(sender: Any, work: Any, arguments: tuple[Any, ...]) -> None:
    sender.send(uvloop.run(work(*arguments)))
    sender.close()


class _Client(asyncio.BufferedProtocol):
    """Sends one request at a time and counts the bytes of its answer."""

    def __init__(self) -> None:
        self.buffer = bytearray(CHUNK)
        self.head = b""
        self.left = -1
        self.size = 0
        self.errors = 0
        self.bodyless = False
        self.done: asyncio.Future[None] | None = None
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def get_buffer(self, _hint: int) -> bytearray:
        return self.buffer

    def buffer_updated(self, count: int) -> None:
        if self.left < 0:
            self.head += bytes(memoryview(self.buffer)[:count])
            end = self.head.find(b"\r\n\r\n")
            if end < 0:
                return
            found = _LENGTH.search(self.head[: end + 2])
            if self.head[9:10] != b"2" or found is None:
                self.errors += 1
            length = 0 if self.bodyless or found is None else int(found[1])
            self.size += length
            self.left = length - (len(self.head) - end - 4)
            self.head = b""
        else:
            self.left -= count
        if self.left <= 0:
            self.left = -1
            self._finish()

    def connection_lost(self, _exc: Exception | None) -> None:
        if self.done is not None and not self.done.done():
            self.errors += 1
            self._finish()

    def _finish(self) -> None:
        if self.done is not None and not self.done.done():
            self.done.set_result(None)

    async def ask(self, data: bytes, *, bodyless: bool) -> None:
        self.bodyless = bodyless
        self.done = asyncio.get_running_loop().create_future()
        self.transport.write(data)
        await self.done


async def _connect(port: int) -> _Client:
    _, client = await asyncio.get_running_loop().create_connection(_Client, "127.0.0.1", port)
    return client


async def _hammer(port: int, asks: list[Ask], connections: int, seconds: float) -> Result:
    encoded = [(ask.encode(), ask.method == "HEAD") for ask in asks]
    latencies: list[float] = []
    clients = [await _connect(port) for _ in range(connections)]
    began = time.perf_counter()

    async def work(client: _Client, offset: int) -> None:
        number = offset
        while (now := time.perf_counter()) - began < seconds and client.errors == 0:
            data, bodyless = encoded[number % len(encoded)]
            await client.ask(data, bodyless=bodyless)
            latencies.append(time.perf_counter() - now)
            number += 1

    await asyncio.gather(*(work(client, number) for number, client in enumerate(clients)))
    return _result(clients, latencies, time.perf_counter() - began)


async def _storm(port: int, asks: list[Ask], clients: int) -> Result:
    encoded = [(ask.encode(), ask.method == "HEAD") for ask in asks]
    latencies: list[float] = []
    made: list[_Client] = []
    began = time.perf_counter()

    async def work() -> None:
        client = await _connect(port)
        made.append(client)
        for data, bodyless in encoded:
            await client.ask(data, bodyless=bodyless)
        latencies.append(time.perf_counter() - began)

    await asyncio.gather(*(work() for _ in range(clients)))
    return _result(made, latencies, time.perf_counter() - began)


def _result(clients: list[_Client], latencies: list[float], seconds: float) -> Result:
    for client in clients:
        client.transport.close()
    size = sum(client.size for client in clients)
    errors = sum(client.errors for client in clients)
    return Result(len(latencies), size, seconds, errors, sorted(latencies))
