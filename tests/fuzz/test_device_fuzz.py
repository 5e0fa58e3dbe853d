"""A short run of every fuzzer of the scanner, the same on each machine for the same inputs."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from tests.fuzz.engine import mutate, run
from tests.fuzz.readers import READERS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@pytest.mark.parametrize(("target", "seeds"), READERS.values(), ids=READERS)
def test_mutated_files_never_raise_and_never_hang(
    target: Callable[[bytes], object], seeds: Sequence[bytes]
) -> None:
    assert run(target, seeds, seconds=0.6, seed=1) > 20


@pytest.mark.parametrize(("target", "seeds"), READERS.values(), ids=READERS)
def test_files_cut_short_never_raise(
    target: Callable[[bytes], object], seeds: Sequence[bytes]
) -> None:
    for seed in seeds:
        for size in range(0, len(seed), max(7, len(seed) // 60)):
            target(seed[:size])


def test_equal_seed_numbers_give_equal_mutations() -> None:
    first = [mutate(bytes(99), random.Random(7)) for _ in range(3)]
    assert first == [mutate(bytes(99), random.Random(7)) for _ in range(3)]
    assert mutate(bytes(99), random.Random(8)) != first[0]
