"""What a pod does when one kernel is refused: fall back, keep the previous one, or stop.

The choice is made per kernel: signed for a lane, wished for in a lock, tightened by a pod. Values
and their order only; who carries them out is the client.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final

from kgate_core.errors import InvalidInput
from kgate_core.kernel import KernelRef

if TYPE_CHECKING:
    from collections.abc import Mapping

EVERY: Final = "*"
"""Stands for all kernels that are not named."""


class OnDeny(StrEnum):
    """What becomes of a load that was refused; later values are stricter."""

    KEEP_PREVIOUS = "keep-previous"
    """Load what this pod verified before, if current trust still admits it; else fall back."""
    FALLBACK = "fallback"
    """The caller's own implementation."""
    BLOCK = "block"
    """An error that no caller takes for a fallback."""

    @property
    def strictness(self) -> int:
        """Position from 0."""
        return list(OnDeny).index(self)


def check_choices(choices: Mapping[str, str], *, what: str) -> dict[str, OnDeny]:
    """Return choices by `org/name` or `*`; raises InvalidInput naming the one that is none."""
    found: dict[str, OnDeny] = {}
    for name, text in choices.items():
        if name != EVERY:
            KernelRef.parse(name)
        if text not in set(OnDeny):
            raise InvalidInput(f"{what}: {name}: {text!r} is not one of {', '.join(OnDeny)}")
        found[name] = OnDeny(text)
    return found


def choice_for(choices: Mapping[str, OnDeny], repo: str) -> OnDeny | None:
    """Return what is chosen for a kernel, None where nothing is."""
    return choices.get(repo, choices.get(EVERY))


def stricter(first: OnDeny, second: OnDeny | None) -> OnDeny:
    """Return the stricter of two choices."""
    if second is None or first.strictness >= second.strictness:
        return first
    return second
