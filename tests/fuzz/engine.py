"""Mutates seeds and feeds them to a parser: it must never raise, never hang, never hoard.

A mutation keeps most of a seed and breaks a little: bits, bytes, integers at field boundaries,
lengths, order. Equal seed numbers give equal runs, so a failure can be repeated; a failing input
is written to a file.
"""

from __future__ import annotations

import argparse
import random
import resource
import struct
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MAX_SECONDS: Final = 5.0  # for one input of a few KiB
MAX_GROWTH: Final = 512 * 1024  # KiB of resident memory during one run
_NUMBERS: Final = (0, 1, 2, 7, 8, 0x7F, 0x80, 0xFF, 0xFFFF, 1 << 20, 1 << 31, (1 << 32) - 1)
_WIDE: Final = (1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)


def mutate(seed: bytes, chance: random.Random) -> bytes:
    """Return the seed with one to eight mutations."""
    data = bytearray(seed)
    for _ in range(chance.randint(1, 8)):
        if data:
            _mutate_once(data, chance)
    return bytes(data)


def _mutate_once(data: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(data))
    match chance.randrange(9):
        case 0:
            data[at] ^= 1 << chance.randrange(8)
        case 1:
            data[at] = chance.randrange(256)
        case 2:
            put(data, at & ~3, struct.pack("<I", chance.choice(_NUMBERS)))
        case 3:
            put(data, at & ~7, struct.pack("<Q", chance.choice((*_NUMBERS, *_WIDE))))
        case 4:
            put(data, at & ~1, struct.pack("<H", chance.choice(_NUMBERS[:9])))
        case 5:
            del data[at:]
        case 6:
            size = chance.randint(1, 64)
            other = chance.randrange(len(data))
            data[at : at + size] = data[other : other + size]
        case 7:
            del data[at : at + chance.randint(1, 32)]
        case _:
            data[at:at] = chance.randbytes(chance.randint(1, 32))


def put(data: bytearray, at: int, value: bytes) -> None:
    """Overwrite bytes without changing the length."""
    room = min(len(value), len(data) - at)
    data[at : at + room] = value[:room]


def run(
    target: Callable[[bytes], object], seeds: Sequence[bytes], *, seconds: float, seed: int = 0
) -> int:
    """Feed mutated seeds to `target` for so long; return how many.

    Raises whatever the target raises, or AssertionError for a slow or hoarding one.
    """
    chance = random.Random(seed)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    end = time.monotonic() + seconds
    count = 0
    while time.monotonic() < end:
        data = mutate(chance.choice(seeds), chance)
        started = time.monotonic()
        try:
            target(data)
        except BaseException:
            keep(data, target.__name__, count)
            raise
        if time.monotonic() - started > MAX_SECONDS:
            keep(data, target.__name__, count)
            raise AssertionError(f"{target.__name__} took more than {MAX_SECONDS} s for one input")
        count += 1
    growth = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    if growth > MAX_GROWTH:
        raise AssertionError(f"{target.__name__} grew by {growth} KiB")
    return count


def keep(data: bytes, name: str, number: int) -> None:
    """Write a failing input beside the temporary files, for a later test."""
    (Path(tempfile.gettempdir()) / f"kgate-fuzz-{name}-{number}.bin").write_bytes(data)


def main(target: Callable[[bytes], object], seeds: Sequence[bytes]) -> None:
    """Run from the command line: `python -m tests.fuzz.fuzz_fatbin --seconds 60 --seed 7`."""
    parser = argparse.ArgumentParser(description=f"fuzz {target.__name__}")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    count = run(target, seeds, seconds=asked.seconds, seed=asked.seed)
    print(f"{target.__name__}: {count} inputs, nothing raised")
