from __future__ import annotations

from kgate_mirror_server.serve.rate import MAX_CLIENTS, RateLimit


def test_a_client_may_burst_and_then_waits_as_long_as_it_must() -> None:
    rate = RateLimit(per_second=2.0, burst=3)

    assert [rate.wait("10.0.0.1:5", 0.0) for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    assert rate.wait("10.0.0.1:6", 0.5) == 0.0  # another port is the same client
    assert rate.wait("10.0.0.1:6", 0.5) == 0.5


def test_one_client_does_not_spend_what_is_anothers() -> None:
    rate = RateLimit(per_second=1.0, burst=1)

    assert rate.wait("10.0.0.1:5", 0.0) == 0.0
    assert rate.wait("10.0.0.1:5", 0.0) > 0.0
    assert rate.wait("[::1]:5", 0.0) == 0.0


def test_a_client_that_was_quiet_has_its_burst_again_and_no_more() -> None:
    rate = RateLimit(per_second=1.0, burst=2)
    for _ in range(2):
        rate.wait("10.0.0.1:5", 0.0)

    assert [rate.wait("10.0.0.1:5", 100.0) for _ in range(3)] == [0.0, 0.0, 1.0]


def test_many_addresses_cost_bounded_memory() -> None:
    rate = RateLimit(per_second=1.0, burst=1)
    for number in range(MAX_CLIENTS + 500):
        rate.wait(f"10.0.{number}:5", 0.0)

    assert len(rate._left) == MAX_CLIENTS
