"""How property tests run here: repeatable, and without a stopwatch on a busy machine."""

from __future__ import annotations

from typing import Final

from hypothesis import HealthCheck, settings

STEADY: Final = settings(
    deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
