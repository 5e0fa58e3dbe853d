"""What the gate answers, and all that was learned on the way to it.

Values only: they are made by `gate`, carried out by `pod` and written down by `report`.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kgate_core.manifest import Manifest
    from kgate_core.trust import TrustedRoot
    from kgate_core.verify import Verdict, Verified


@dataclass(slots=True)
class Trace:
    """What is known about a request so far; filled step by step for the report."""

    asked: str
    path: str
    repo: str = ""
    revision: str = ""
    variant: str = ""
    manifest: str = ""
    ignored: tuple[str, ...] = ()
    """Bytecode that was passed over."""
    timings: dict[str, float] = field(default_factory=dict)
    """Milliseconds by step."""
    verdict: Verdict | None = None
    trusted: TrustedRoot | None = None

    @contextlib.contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Add the time spent inside to a step."""
        start = time.perf_counter()
        try:
            yield
        finally:
            spent = (time.perf_counter() - start) * 1000
            self.timings[step] = round(self.timings.get(step, 0.0) + spent, 3)

    @property
    def kernel(self) -> str:
        """Name for people: `org/name@revision`, or what was asked."""
        if not self.repo:
            return self.asked
        return f"{self.repo}@{self.revision}" if self.revision else self.repo


@dataclass(frozen=True, slots=True)
class Cleared:
    """These bytes are what was signed for this request; `sealed` is None if no copy was wanted."""

    trace: Trace
    verdict: Verified
    manifest: Manifest
    metadata: dict[str, Any]
    sealed: Path | None


@dataclass(frozen=True, slots=True)
class Refused:
    """At least one step failed; `reason` is a stable word, `message` a sentence."""

    trace: Trace
    reason: str
    message: str


Answer = Cleared | Refused
