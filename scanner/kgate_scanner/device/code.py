"""What a reader of code objects returns, whatever the vendor."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kgate_scanner.device.images import DeviceKernel, Tool

MAX_KERNELS: Final = 50_000  # of one image; the largest known has 1,400


@dataclass(frozen=True, slots=True)
class CodeObject:
    """What one code object says of itself; equal to the default if it says nothing."""

    target: str = ""
    """Architecture in the vendor's words; empty if unknown."""
    toolkit: str = ""
    tools: tuple[Tool, ...] = ()
    debug: bool = False
    has_lineinfo: bool = False
    source: str = ""
    """A source or build path named inside, empty if none."""
    relocatable: bool = False
    kernels: tuple[DeviceKernel, ...] = ()
    damage: tuple[str, ...] = ()
    """What does not fit together, in sentences."""


def list_kernels(kernels: Iterator[DeviceKernel], damage: list[str]) -> tuple[DeviceKernel, ...]:
    """Return the kernels of one image; beyond `MAX_KERNELS` they are damage."""
    listed = tuple(islice(kernels, MAX_KERNELS))
    if next(kernels, None) is not None:
        damage.append(f"more than {MAX_KERNELS} kernels in one image")
    return listed
