"""Which connections are too many, and which of them go first."""

from __future__ import annotations

import resource
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING

from kgate_mirror_server.serve import connections
from kgate_mirror_server.serve.connections import Connection, ConnectionBounds, surplus
from kgate_mirror_server.serve.settings import Limits

if TYPE_CHECKING:
    import pytest


def held(address: str, *silent: float) -> list[Connection]:
    return [Connection(9, (address, port), seconds) for port, seconds in enumerate(silent)]


def closed(*groups: list[Connection], per_address: int, total: int) -> list[tuple[str, float]]:
    every = [connection for group in groups for connection in group]
    found = surplus(every, per_address, total)
    return [(connection.client[0], connection.silent) for connection in found]


def test_below_the_bounds_nothing_is_closed() -> None:
    assert closed(held("a", 100, 200), held("b", 50), per_address=2, total=3) == []


def test_the_longest_silent_of_an_address_go_first() -> None:
    assert closed(held("a", 5, 90, 30, 7), held("b", 99), per_address=2, total=100) == [
        ("a", 90),
        ("a", 30),
    ]


def test_what_is_in_use_stays_even_beyond_the_bounds() -> None:
    assert closed(held("a", 0, 1, 2, 2.9), held("b", 0.1), per_address=1, total=1) == []


def test_all_together_too_many_the_one_with_most_gives_first() -> None:
    crowd, few = held("crowd", *range(10, 20)), held("few", 90, 91)
    found = closed(crowd, few, per_address=100, total=6)
    assert found == [("crowd", seconds) for seconds in range(19, 13, -1)]
    left = {("crowd", 10), ("few", 90)}  # one each, the least silent
    assert {*closed(crowd, few, per_address=100, total=2)} == {
        (each.client[0], each.silent) for each in (*crowd, *few)
    } - left


def test_a_total_that_silent_ones_cannot_reach_is_no_error() -> None:
    assert closed(held("a", 0, 0, 50), per_address=9, total=1) == [("a", 50)]


def test_only_connections_to_the_port_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "SILENT", -1.0)  # all count as silent
    with ExitStack() as stack:
        ports, ours = [], []
        for _ in range(2):
            listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            ports.append(int(listening.getsockname()[1]))
            for _ in range(3):
                ours.append(stack.enter_context(socket.create_connection(listening.getsockname())))
                stack.enter_context(listening.accept()[0])
        bounds = ConnectionBounds(ports[0], Limits(connections_per_address=1), 100)
        assert bounds.look() == 2
        before = len(connections._descriptors())
        assert bounds.look() <= 2  # shut down, not yet let go: no error
        assert len(connections._descriptors()) == before
        ends = [wire for wire in ours if _ended(wire)]
    assert len(ends) == 2
    assert all(wire in ours[:3] for wire in ends)


def _ended(wire: socket.socket) -> bool:
    wire.settimeout(0.05)
    try:
        return wire.recv(1) == b""
    except TimeoutError:
        return False


def test_a_process_that_holds_few_descriptors_is_not_looked_through(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "_opened", None)  # would fail if it were called
    assert ConnectionBounds(1, Limits(), 16_000).look() == 0


def test_some_descriptors_are_kept_for_what_is_no_client() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        most = connections.most_connections()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert soft == hard
        assert soft // 2 <= most < soft
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
