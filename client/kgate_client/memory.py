"""What this process has loaded and refused, so that neither is done twice.

Values only; what is put in here was decided by the gate.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    from kgate_client.answer import Cleared, Refused
    from kgate_client.asked import Asked
    from kgate_client.request import Request
    from kgate_core.digest import Digest

REMEMBER_REFUSAL: Final = 30.0  # seconds in which the same refused files are not read again


@dataclass(slots=True)
class Loaded:
    """A module and the answer that let it in."""

    answer: Cleared
    module: ModuleType


@dataclass(slots=True)
class Memory:
    """Loaded modules by path and by files, and refusals for a while."""

    by_path: dict[Path, Loaded] = field(default_factory=dict)
    by_manifest: dict[Digest, Loaded] = field(default_factory=dict)
    _refused: dict[tuple[Path, Asked], tuple[float, Refused]] = field(default_factory=dict)

    def refusal(self, request: Request, now: float) -> Refused | None:
        """Return the refusal of a moment ago; `now` is a monotonic time in seconds."""
        until, answer = self._refused.get((request.path, request.asked), (0.0, None))
        return answer if now < until else None

    def remember(self, request: Request, answer: Refused, now: float) -> None:
        """Keep a refusal for a while, counted from the first time."""
        if self.refusal(request, now) is None:
            self._refused[request.path, request.asked] = (now + REMEMBER_REFUSAL, answer)
