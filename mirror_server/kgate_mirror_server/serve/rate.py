"""Bounds how many requests one client address may make; a bucket that refills with time.

For mirrors without nginx in front: behind a proxy every client has the proxy's address, and the
proxy bounds them. Memory is bounded too: addresses that were quiet longest are forgotten first.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

MAX_CLIENTS: Final = 10_000  # addresses that are remembered


class RateLimit:
    """Counts the requests of each address."""

    def __init__(self, per_second: float, burst: int) -> None:
        self._rate = per_second
        self._burst = float(burst)
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, client: str, now: float) -> float:
        """Count a request; return 0, or how many seconds the client should wait.

        `client` is `address:port`, `now` a monotonic time in seconds.
        """
        address = client.rpartition(":")[0]
        left, then = self._left.pop(address, (self._burst, now))
        left = min(self._burst, left + (now - then) * self._rate)
        if len(self._left) >= MAX_CLIENTS:
            self._left.popitem(last=False)
        if left < 1.0:
            self._left[address] = (left, now)
            return (1.0 - left) / self._rate
        self._left[address] = (left - 1.0, now)
        return 0.0
