"""T21: slow, idle, oversized and greedy clients, while another one goes on being served."""

from __future__ import annotations

import contextlib
import resource
import socket
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from kgate_mirror_server.serve.settings import Limits
from tests.mirrorkit import FILES, VARIANT, make_mirror, served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SMALL = f"/kernels/acme/relu/resolve/v1/build/{VARIANT}/layers.py"
LARGE = f"/kernels/acme/relu/resolve/v1/build/{VARIANT}/big.so"
LIMITS = Limits()
BIG = bytes(range(256)) * 4096 * 20


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    kit = make_mirror(tmp_path_factory.mktemp("mirror"))
    kit.publish(kit.variant({**FILES, "big.so": BIG}))
    with served(kit.settings) as address:
        yield int(urlsplit(address).port or 0)


def others_are_served(port: int) -> bool:
    began = time.monotonic()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{SMALL}", timeout=10) as reply:
        fine = reply.read() == FILES["layers.py"]
    return bool(fine) and time.monotonic() - began < 5


def connect(port: int, source: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=5, source_address=(source, 0))


def is_open(wire: socket.socket) -> bool:
    """Return whether the server has not closed a connection on which it has nothing to say."""
    wire.settimeout(0)
    try:
        return wire.recv(1, socket.MSG_PEEK) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        wire.settimeout(5)


def answer(wire: socket.socket) -> bytes:
    """Return everything until the server closes; empty if it just closed."""
    data = b""
    try:
        while chunk := wire.recv(65536):
            data += chunk
    except (ConnectionError, TimeoutError):
        pass
    return data


def test_t21_a_thousand_idle_connections_keep_nobody_out(port: int) -> None:
    idle = [connect(port) for _ in range(1000)]
    try:
        assert others_are_served(port)
    finally:
        for wire in idle:
            wire.close()


def test_t21_ten_thousand_idle_connections_keep_nobody_out_and_go(port: int) -> None:
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    many = min(10_000, allowed - 512)  # the test holds the other ends
    assert many >= 2 * LIMITS.connections_per_address, "the limit on open files is too low to tell"
    idle = [connect(port) for _ in range(many)]
    try:
        assert others_are_served(port)
        end = time.monotonic() + LIMITS.header_seconds - 1  # before the time for headers is over
        while sum(map(is_open, idle)) > LIMITS.connections_per_address:
            assert time.monotonic() < end, "one address held on to them"
            assert others_are_served(port)
            time.sleep(0.2)
        assert others_are_served(port)
    finally:
        for wire in idle:
            wire.close()


def test_t21_the_crowd_loses_connections_and_who_is_served_keeps_its_own(tmp_path: Path) -> None:
    kit = make_mirror(tmp_path)
    kit.publish(kit.variant({**FILES, "big.so": BIG}))
    limits = Limits(connections_per_address=64)
    with served(replace(kit.settings, limits=limits)) as address:
        port = int(urlsplit(address).port or 0)
        busy, quiet = connect(port), connect(port, "127.0.0.2")
        crowd = [connect(port) for _ in range(400)]
        for _ in range(12):
            busy.sendall(f"HEAD {SMALL} HTTP/1.1\r\nHost: mirror\r\n\r\n".encode())
            assert busy.recv(4096).startswith(b"HTTP/1.1 200")
            time.sleep(0.5)
        assert sum(map(is_open, crowd)) <= 64
        assert is_open(busy)
        assert is_open(quiet)
        for wire in (busy, quiet, *crowd):
            wire.close()


def test_t21_headers_that_trickle_are_cut_off_in_time(port: int) -> None:
    slow = [connect(port) for _ in range(50)]
    for wire in slow:
        wire.sendall(b"GET / HTTP/1.1\r\nHost: mirror\r\n")
    end = time.monotonic() + LIMITS.header_seconds + 15
    open_ones = set(slow)
    while open_ones and time.monotonic() < end:
        for wire in list(open_ones):
            try:
                wire.sendall(b"X: y\r\n")
                wire.settimeout(0.01)
                wire.recv(100)  # an error answer, or the end: both let it go
                open_ones.discard(wire)
            except TimeoutError:
                continue
            except OSError:
                open_ones.discard(wire)
        assert others_are_served(port)
        time.sleep(0.5)
    for wire in slow:
        wire.close()
    assert not open_ones


@pytest.mark.parametrize(
    "headers",
    [
        b"X: " + b"a" * (4 * LIMITS.header_bytes) + b"\r\n",
        b"".join(b"X-%d: y\r\n" % number for number in range(20_000)),
        b"Cookie: " + b"a=b; " * 50_000 + b"\r\n",
    ],
    ids=["one long", "many", "cookie"],
)
def test_t21_header_bombs_are_refused(port: int, headers: bytes) -> None:
    with connect(port) as wire:
        with contextlib.suppress(OSError):  # closed while we were sending: refused
            wire.sendall(b"GET /healthz HTTP/1.1\r\nHost: mirror\r\n" + headers + b"\r\n")
        said = answer(wire)
    assert said == b"" or said.split(b" ", 2)[1] in {b"400", b"414", b"431"}
    assert others_are_served(port)


@pytest.mark.parametrize(
    ("ranges", "most"),
    [
        ("bytes=" + ",".join(["0-"] * 10), len(BIG)),
        ("bytes=" + ",".join(["0-"] * 100), len(BIG)),
        ("bytes=" + ",".join(f"{n}-{n}" for n in range(0, 30, 2)), 4096),
        ("bytes=" + ",".join(f"{n}-" for n in range(16)), len(BIG)),
    ],
)
def test_t21_a_storm_of_ranges_moves_no_more_than_the_file(
    port: int, ranges: str, most: int
) -> None:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{LARGE}", headers={"Range": ranges})
    with urllib.request.urlopen(request, timeout=30) as reply:
        assert len(reply.read()) <= most + 4096


def test_t21_clients_that_read_nothing_hold_up_nobody(port: int) -> None:
    lazy = [connect(port) for _ in range(100)]
    for wire in lazy:
        wire.sendall(f"GET {LARGE} HTTP/1.1\r\nHost: mirror\r\n\r\n".encode())
    time.sleep(0.5)
    with ThreadPoolExecutor(10) as pool:
        assert all(pool.map(others_are_served, [port] * 10))
    for wire in lazy:
        wire.close()


def test_t21_an_endless_form_is_refused(port: int) -> None:
    target = "/api/kernels/acme/relu/paths-info/v1"
    with connect(port) as wire:
        head = f"POST {target} HTTP/1.1\r\nHost: m\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        wire.sendall(head)
        sent = 0
        try:
            while sent < 64 * 1024 * 1024:
                wire.sendall(b"10000\r\n" + b"a" * 65536 + b"\r\n")
                sent += 65536
        except OSError:
            pass  # refused while we were sending
        said = answer(wire) if sent < 64 * 1024 * 1024 else b""
    assert sent < 64 * 1024 * 1024
    assert said == b"" or b" 400 " in said.splitlines()[0]
    assert others_are_served(port)


def test_t21_one_address_that_asks_without_end_is_told_to_wait(tmp_path: Path) -> None:
    kit = make_mirror(tmp_path)
    kit.publish()
    limits = Limits(requests_per_second=5.0, burst=20)
    with served(replace(kit.settings, limits=limits)) as address:
        statuses = [asked(f"{address}{SMALL}") for _ in range(60)]
        assert statuses.count(200) >= 20
        assert (statuses[-1], 200 not in statuses[-10:]) == (429, True)
        assert asked(f"{address}/healthz") == 200
        time.sleep(1.5)
        assert asked(f"{address}{SMALL}") == 200


def asked(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=10) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code if int(exc.headers["Retry-After"]) >= 1 else 0
