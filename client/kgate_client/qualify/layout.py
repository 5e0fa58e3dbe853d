"""Where every tensor of a batch lies in one shared piece of memory, with guards between them.

The judge writes inputs and guards, the candidate computes on the same memory, the judge reads what
is there afterwards. The guards hold random bytes, so writing beside a tensor shows; an answer
begins as random bytes too, so leaving it out shows. What the bytes mean is for `judging`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, Final

from kgate_client.qualify.casefile import DTYPES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kgate_client.qualify.casefile import Case

GUARD: Final = 4096  # bytes on both sides of every tensor; keeps tensors aligned, too
MAX_REGION: Final = 2**30  # bytes of one batch


@dataclass(frozen=True, slots=True)
class Slot:
    """One tensor's place."""

    offset: int
    size: int
    """In bytes."""
    shape: tuple[int, ...]

    def to_json(self) -> list[Any]:
        """Return offset, size and shape."""
        return [self.offset, self.size, list(self.shape)]


@dataclass(frozen=True, slots=True)
class Layout:
    """The places of all tensors of `count` calls."""

    slots: tuple[Mapping[str, Slot], ...]
    size: int
    """Of the whole region in bytes."""

    @classmethod
    def of(cls, case: Case, shape: Mapping[str, tuple[int, ...]], dtype: str, count: int) -> Layout:
        """Lay out the tensors of a batch."""
        at, slots = GUARD, []
        for _ in range(count):
            item = {}
            for name in (*case.inputs, case.output):
                size = prod(shape[name]) * DTYPES[dtype]
                item[name] = Slot(at, size, shape[name])
                at += -(-size // GUARD) * GUARD + GUARD
            slots.append(item)
        return cls(tuple(slots), at)

    def guards(self) -> list[tuple[int, int]]:
        """Return begin and end of everything that belongs to no tensor."""
        found, at = [], 0
        for item in self.slots:
            for slot in item.values():
                found.append((at, slot.offset))
                at = slot.offset + slot.size
        return [*found, (at, self.size)]


def calls_that_fit(
    case: Case, shape: Mapping[str, tuple[int, ...]], dtype: str, wanted: int
) -> int:
    """Return how many calls of a shape fit into one region, `wanted` at most, one at least."""
    one = Layout.of(case, shape, dtype, 1).size
    return max(1, min(wanted, MAX_REGION // one))


def noise(size: int) -> bytes:
    """Return bytes that nobody can guess; long ones repeat a random block."""
    block = os.urandom(min(size, 65_521))
    return (block * (size // len(block) + 1))[:size] if block else b""
