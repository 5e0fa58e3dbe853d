"""Compares a kernel's answers with the reference's and its time with the fallback's.

Everything that decides is done here, in a process in which the kernel never ran: inputs, right
answers, `torch.testing.assert_close`, the clock. Besides the seeds of the case file, each run uses
one that nobody can know before. What follows from the numbers is for policies to say.
"""

from __future__ import annotations

import importlib
import math
import os
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from kgate_client.qualify.handle import Failed, Gone
from kgate_client.qualify.layout import Layout, calls_that_fit, noise
from kgate_client.qualify.references import find_reference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from kgate_client.qualify.casefile import Case
    from kgate_client.qualify.handle import Ran, Worker

PPM: Final = 1_000_000
UNBOUNDED: Final = 10**12  # an error in parts per million that is infinite, NaN or larger
WARM_UPS: Final = 2  # batches
REPEATS: Final = 5  # batches of which the median counts
MAX_CALLS: Final = 32  # of one batch
MAX_BATCH: Final = 8 * 1024**2  # bytes of one timed batch
_MAX_WHY: Final = 300  # characters


@dataclass(frozen=True, slots=True)
class Tried:
    """One function in one shape and dtype, over all seeds."""

    function: str
    dtype: str
    shape: Mapping[str, tuple[int, ...]]
    why: str
    """Empty if every answer was right."""
    abs_ppm: int
    rel_ppm: int

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object without floats."""
        return {
            "function": self.function,
            "dtype": self.dtype,
            "shape": {name: list(dims) for name, dims in self.shape.items()},
            "equal": not self.why,
            **({"why": self.why} if self.why else {}),
            "maxAbsErrorPpm": self.abs_ppm,
            "maxRelErrorPpm": self.rel_ppm,
        }


@dataclass(frozen=True, slots=True)
class Timed:
    """How long one call takes, and the memory that a batch needs besides its tensors."""

    function: str
    dtype: str
    shape: Mapping[str, tuple[int, ...]]
    kernel_ns: int
    fallback_ns: int
    kernel_memory: int | None
    fallback_memory: int | None

    @property
    def speedup_ppm(self) -> int:
        """The fallback's time over the kernel's."""
        return min(UNBOUNDED, self.fallback_ns * PPM // max(1, self.kernel_ns))

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object without floats."""
        return {
            "function": self.function,
            "dtype": self.dtype,
            "shape": {name: list(dims) for name, dims in self.shape.items()},
            "kernelNs": self.kernel_ns,
            "fallbackNs": self.fallback_ns,
            "speedupPpm": self.speedup_ppm,
            "kernelMemoryBytes": self.kernel_memory,
            "fallbackMemoryBytes": self.fallback_memory,
        }


@dataclass(slots=True)
class Judge:
    """Tries the cases of one file."""

    cases: Sequence[Case]
    device: str
    candidate: Worker
    start_fallback: Callable[[], Worker]
    fresh: int = field(default_factory=lambda: int.from_bytes(os.urandom(6)))
    """The seed that nobody knew before."""

    def combinations(self) -> Iterator[tuple[Case, Mapping[str, tuple[int, ...]], str]]:
        """Yield every case with its shapes and dtypes."""
        for case in self.cases:
            for dtype in case.dtypes:
                for shape in case.shapes:
                    yield case, shape, dtype

    def check(self) -> list[Tried]:
        """Try everything; after a crash or a hang the rest counts as wrong."""
        tried, gone = [], ""
        for case, shape, dtype in self.combinations():
            why, worst = gone and "not tried: the process was gone", (0, 0)
            if not gone:
                try:
                    why, worst = self._try(case, shape, dtype)
                except Failed as exc:
                    why = exc.message
                except Gone as exc:
                    why = gone = exc.message
            tried.append(Tried(case.function, dtype, shape, why, *worst))
        return tried

    def measure(self) -> tuple[list[Timed], str]:
        """Time everything; the second value says why it ended early."""
        timed: list[Timed] = []
        fallback = self.start_fallback()
        try:
            fallback.confined()
            fallback.loaded()
            for case, shape, dtype in self.combinations():
                found = self._time(case, shape, dtype, fallback)
                if isinstance(found, str):
                    return timed, found
                timed.append(found)
        except (Gone, Failed) as exc:
            return timed, exc.message
        finally:
            fallback.close()
        return timed, ""

    def _try(
        self, case: Case, shape: Mapping[str, tuple[int, ...]], dtype: str
    ) -> tuple[str, tuple[int, int]]:
        # The last two are the same: what is right once may be wrong the next time.
        seeds = [*case.seeds, self.fresh, self.fresh]
        each = calls_that_fit(case, shape, dtype, len(seeds))
        answers, worst, first = [], (0, 0), ""
        for at in range(0, len(seeds), each):
            batch = Batch(case, shape, dtype, seeds[at : at + each], self.device)
            ran = self.candidate.run(case, dtype, batch.layout, batch.filled)
            why, errors = batch.judge(ran)
            first = first or why
            worst = max(worst[0], errors[0]), max(worst[1], errors[1])
            answers += batch.answers(ran)
        if not first and case.repeatable and answers[-1] != answers[-2]:
            first = "the same input gave two different answers"
        return first, worst

    def _time(
        self, case: Case, shape: Mapping[str, tuple[int, ...]], dtype: str, fallback: Worker
    ) -> Timed | str:
        one = Layout.of(case, shape, dtype, 1).size
        count = max(1, min(MAX_CALLS, MAX_BATCH // one))
        took: list[int] = []
        fallback_took: list[int] = []
        carried: list[int] = []
        peaks: list[int | None] = []
        fallback_peaks: list[int | None] = []
        for turn in range(WARM_UPS + REPEATS):
            seeds = [int.from_bytes(os.urandom(6)) for _ in range(count)]
            batch = Batch(case, shape, dtype, seeds, self.device)
            ran = self.candidate.run(case, dtype, batch.layout, batch.filled)
            why, _ = batch.judge(ran)
            if why:
                return f"{case.function} {dtype}: wrong while it was timed: {why}"
            beside = fallback.run(case, dtype, batch.layout, batch.filled)
            if turn >= WARM_UPS:
                took.append(ran.nanoseconds)
                fallback_took.append(beside.said)
                carried.append(beside.nanoseconds - beside.said)
                peaks.append(ran.peak)
                fallback_peaks.append(beside.peak)
        # What the way to the process and back costs is the same for both, and no kernel's fault.
        own = max(1.0, median(took) - median(carried))
        return Timed(
            case.function,
            dtype,
            shape,
            max(1, round(own / count)),
            max(1, round(median(fallback_took) / count)),
            _highest(peaks),
            _highest(fallback_peaks),
        )


class Batch:
    """The inputs of a few calls, and the judgement over what came back."""

    def __init__(
        self,
        case: Case,
        shape: Mapping[str, tuple[int, ...]],
        dtype: str,
        seeds: Sequence[int],
        device: str,
    ) -> None:
        self._torch: Any = importlib.import_module("torch")
        self._case, self._seeds, self._device = case, seeds, device
        self._dtype = getattr(self._torch, dtype)
        self._tolerance = case.tolerance(dtype)
        self.layout = Layout.of(case, shape, dtype, len(seeds))
        self._inputs = [self._made(item, seed) for item, seed in self._items()]
        region = bytearray(noise(self.layout.size))
        for item, tensors in zip(self.layout.slots, self._inputs, strict=True):
            for name, tensor in tensors.items():
                slot = item[name]
                region[slot.offset : slot.offset + slot.size] = self._bytes(tensor)
        self.filled = bytes(region)

    def _items(self) -> Iterator[tuple[Mapping[str, Any], int]]:
        return zip(self.layout.slots, self._seeds, strict=True)

    def _made(self, item: Mapping[str, Any], seed: int) -> dict[str, Any]:
        torch = self._torch
        source = torch.Generator().manual_seed(seed)
        made = {}
        for name in self._case.inputs:
            numbers = torch.randn(item[name].shape, generator=source) * self._case.scale
            made[name] = numbers.to(self._dtype)
        return made

    def _bytes(self, tensor: Any) -> bytes:  # noqa: ANN401  # torch is not typed here
        raw: bytes = tensor.contiguous().view(-1).view(self._torch.uint8).numpy().tobytes()
        return raw

    def answers(self, ran: Ran) -> list[bytes]:
        """Return the bytes of every answer."""
        places = (item[self._case.output] for item in self.layout.slots)
        return [ran.memory[slot.offset : slot.offset + slot.size] for slot in places]

    def judge(self, ran: Ran) -> tuple[str, tuple[int, int]]:
        """Return what is wrong, nothing if all is right, and the greatest errors in millionths."""
        if ran.aliased:
            return "it returned a view of its input instead of an answer of its own", (0, 0)
        for begin, end in self.layout.guards():
            if ran.memory[begin:end] != self.filled[begin:end]:
                return "it wrote outside of its tensors", (0, 0)
        first, worst = "", (0, 0)
        for (item, seed), tensors, answer in zip(
            self._items(), self._inputs, self.answers(ran), strict=True
        ):
            for name in tensors:
                slot = item[name]
                place = slice(slot.offset, slot.offset + slot.size)
                if ran.memory[place] != self.filled[place]:
                    return f"it changed its input {name}", (0, 0)
            why, errors = self._compare(item[self._case.output].shape, tensors, answer)
            first = first or (why and f"{why} (seed {seed})")
            worst = max(worst[0], errors[0]), max(worst[1], errors[1])
        return first, worst

    def _compare(
        self, shape: tuple[int, ...], tensors: Mapping[str, Any], answer: bytes
    ) -> tuple[str, tuple[int, int]]:
        torch = self._torch
        actual = torch.frombuffer(bytearray(answer), dtype=self._dtype).view(shape)
        # Computed with more digits and rounded once: the fallback's own rounding is no error.
        exact = torch.float64 if self._dtype is torch.float64 else torch.float32
        asked = [
            tensors[one].to(self._device, exact) if isinstance(one, str) else one
            for one in self._case.asked
        ]
        expected = find_reference(self._case.reference)(*asked).cpu().to(self._dtype)
        if tuple(expected.shape) != shape:
            return f"the reference's answer has the shape {tuple(expected.shape)}", (0, 0)
        why = ""
        allowed = self._tolerance
        try:
            torch.testing.assert_close(actual, expected, atol=allowed.atol, rtol=allowed.rtol)
        except AssertionError as exc:
            why = " ".join(str(exc).split())[:_MAX_WHY]
        off = (actual.double() - expected.double()).abs()
        scale = expected.double().abs().clamp(min=max(allowed.atol, 1e-12))
        return why, (_ppm(float(off.max())), _ppm(float((off / scale).max())))


def _ppm(value: float) -> int:
    if math.isnan(value) or value * PPM >= UNBOUNDED:
        return UNBOUNDED
    return math.ceil(value * PPM)


def _highest(values: Sequence[int | None]) -> int | None:
    return max((value for value in values if value is not None), default=None)


def speedup_of(timed: Sequence[Timed]) -> int | None:
    """Return the geometric mean of all ratios in millionths; None without any."""
    if not timed:
        return None
    logs = [math.log(max(1, item.speedup_ppm) / PPM) for item in timed]
    return min(UNBOUNDED, round(math.exp(sum(logs) / len(logs)) * PPM))
