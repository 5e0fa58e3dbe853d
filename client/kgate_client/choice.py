"""What becomes of each refused kernel here: signed, wished for in the lock, tightened by the pod.

The lane's signed choice is the floor; the lock may choose where nothing is signed and be stricter
where something is; `KGATE_ON_DENY` may only be stricter than both. Mode strict blocks everything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kgate_core.ondeny import EVERY, OnDeny, check_choices, choice_for, stricter
from kgate_core.trust import Mode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kgate_core.lock import Lock
    from kgate_core.trust import Lane


@dataclass(frozen=True, slots=True)
class Choices:
    """Everything that has a say about one process's refusals."""

    mode: Mode
    lane: Lane | None
    """The signed floors, None where none are known."""
    lock: Lock | None
    pod: Mapping[str, OnDeny]
    """`KGATE_ON_DENY`."""

    def of(self, repo: str) -> OnDeny:
        """Return what becomes of a refused kernel."""
        if self.mode is Mode.STRICT:
            return OnDeny.BLOCK
        signed = None if self.lane is None else choice_for(self.lane.on_deny, repo)
        wished = self._wished(repo)
        chosen = wished or OnDeny.FALLBACK if signed is None else stricter(signed, wished)
        return stricter(chosen, choice_for(self.pod, repo))

    def _wished(self, repo: str) -> OnDeny | None:
        found: OnDeny | None = None
        for entry in self.lock.kernels if self.lock is not None else ():
            if str(entry.repo) == repo and entry.on_deny is not None:
                found = entry.on_deny if found is None else stricter(found, entry.on_deny)
        return found


def read_choices(text: str) -> dict[str, OnDeny]:
    """Read `KGATE_ON_DENY`: `org/name=block,*=fallback`, or one word for all; InvalidInput."""
    choices: dict[str, str] = {}
    for part in filter(None, (item.strip() for item in text.split(","))):
        name, equals, value = part.partition("=")
        choices[name if equals else EVERY] = value if equals else part
    return check_choices(choices, what="KGATE_ON_DENY")
