"""Which variant would load on a machine, or why none: the stock client's rules, told in reasons.

The order and the conditions are those of `kernels` 0.17 (a differential test holds the two
together). On top of them: whether the chosen variant supports the GPU, and whether a policy or a
missing publication stands in the way. Nothing is fetched.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from kgate_core.errors import InvalidInput
from kgate_core.kernel import Framework, Variant

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kgate_core.evidence import Facts, RuleResult

Version = tuple[int, int]

METAL_MIN_MACOS: Final = (26, 0)
"""Oldest macOS that the stock client loads Metal variants on."""

_DOTTED: Final = re.compile(r"(\d{1,5})\.(\d{1,5})(?![0-9])")
_CUDA_ARCH: Final = re.compile(r"(\d+)\.(\d+)([af]?)(\+PTX)?")
_SM: Final = re.compile(r"sm_(\d+)(\d)([af]?)")
_VERSIONED: Final = frozenset({"cuda", "rocm", "xpu", "cann"})
_ARCH_ORDER: Final = {Framework.TORCH_STABLE_ABI: 0, Framework.TORCH: 1, Framework.TVM_FFI: 2}


@dataclass(frozen=True, slots=True)
class Machine:
    """What a variant is chosen for."""

    backend: str
    """cuda, rocm, xpu, cann, cpu, metal, neuron or tpu."""
    backend_version: Version | None = None
    torch: Version | None = None
    cxx11_abi: bool | None = True
    """C++ ABI of torch; None outside Linux."""
    cpu: str = "x86_64"
    os: str = "linux"
    tvm_ffi: Version | None = None
    macos: Version | None = None
    gpu: str = ""
    """`sm_90`, `gfx942`, or empty if it is not known."""

    def __post_init__(self) -> None:
        if (self.backend in _VERSIONED) is not (self.backend_version is not None):
            raise InvalidInput(
                f"backend {self.backend} and version {self.backend_version} do not go together",
                hint=f"{', '.join(sorted(_VERSIONED))} have a version, other backends have none",
            )


def machines(
    *,
    torch: str | None,
    backend: str,
    version: str | None = None,
    cpu: str = "x86_64",
    os: str = "linux",
    gpus: Iterable[str] = (),
) -> tuple[Machine, ...]:
    """Return one machine for each GPU of a target (one, if none is named).

    Versions are texts such as `2.13`; patch numbers are left out, as the stock client does.
    Raises InvalidInput.
    """
    return tuple(
        Machine(
            backend,
            None if version is None else parse_version(version),
            None if torch is None else parse_version(torch),
            True if os == "linux" else None,
            cpu,
            os,
            gpu=gpu,
        )
        for gpu in (list(gpus) or [""])
    )


def parse_version(text: str) -> Version:
    """Read `2.13`, `2.13.0` or `2.13.0+cu130` as (2, 13); raises InvalidInput."""
    found = _DOTTED.match(text)
    if found is None:
        raise InvalidInput(f"not a version: {text!r}", hint="write it like 2.13")
    return int(found[1]), int(found[2])


@dataclass(frozen=True, slots=True)
class Considered:
    """One variant and why it fits the machine or not."""

    variant: Variant
    fits: bool
    reason: str
    """Empty if it fits."""


def consider(variants: Iterable[str], machine: Machine) -> tuple[Considered, ...]:
    """Return every variant, those that fit first, the preferred one leading.

    Raises InvalidInput for a name that is no variant.
    """
    found = []
    for name in variants:
        variant = Variant.parse(name)
        reason = _noarch_reason(variant, machine) if variant.noarch else _reason(variant, machine)
        found.append(Considered(variant, not reason, reason))
    return tuple(sorted(found, key=_rank))


def _reason(variant: Variant, machine: Machine) -> str:
    if variant.cpu != machine.cpu:
        return f"is for the CPU {variant.cpu}, the machine has {machine.cpu}"
    if variant.os != machine.os:
        return f"is for {variant.os}, the machine runs {machine.os}"
    return _framework_reason(variant, machine) or _backend_reason(variant, machine)


def _framework_reason(variant: Variant, machine: Machine) -> str:
    wanted = variant.framework_version or (0, 0)
    match variant.framework:
        case Framework.TORCH if wanted != machine.torch:
            return f"needs torch {_dotted(wanted)}, the machine has {_dotted(machine.torch)}"
        case Framework.TORCH if variant.cxx11_abi not in {None, machine.cxx11_abi}:
            return "was built for the other C++ ABI of torch"
        case Framework.TORCH_STABLE_ABI if machine.torch is None or wanted > machine.torch:
            return f"needs torch {_dotted(wanted)} or newer, not {_dotted(machine.torch)}"
        case Framework.TVM_FFI if wanted != machine.tvm_ffi:
            return f"needs tvm-ffi {_dotted(wanted)}, the machine has {_dotted(machine.tvm_ffi)}"
        case _:
            return ""


def _backend_reason(variant: Variant, machine: Machine) -> str:
    ours = f"{machine.backend} {_dotted(machine.backend_version)}".removesuffix(" none")
    theirs = f"{variant.backend} {_dotted(variant.backend_version)}".removesuffix(" none")
    if variant.backend != machine.backend:
        return f"is for {theirs}, the machine has {ours}"
    if variant.backend == "cuda" and variant.backend_version and machine.backend_version:
        # A newer minor version of the runtime still loads what an older one built.
        major, minor = variant.backend_version
        if major == machine.backend_version[0] and minor <= machine.backend_version[1]:
            return ""
        return f"needs {theirs}, which does not run on {ours}"
    if variant.backend_version != machine.backend_version:
        return f"needs {theirs} exactly, the machine has {ours}"
    if variant.backend == "metal" and (machine.macos or (0, 0)) < METAL_MIN_MACOS:
        return f"needs macOS {_dotted(METAL_MIN_MACOS)}, the machine has {_dotted(machine.macos)}"
    return ""


def _noarch_reason(variant: Variant, machine: Machine) -> str:
    wanted = "npu" if machine.backend == "cann" else machine.backend
    if variant.backend in {wanted, "universal"}:
        return ""
    return f"is for {variant.backend}, the machine has {wanted}"


def _rank(item: Considered) -> tuple[int, ...]:
    variant = item.variant
    unfit = int(not item.fits)
    if variant.noarch:
        # Beside tvm-ffi: the stock client gives both the same place.
        return (unfit, 2, 0, 0, int(variant.backend == "universal"))
    major, minor = variant.framework_version or (0, 0)
    tie = (0, 0)
    if variant.framework is Framework.TORCH_STABLE_ABI:
        tie = (-major, -minor)
    elif variant.framework is Framework.TORCH:
        tie = (0, int(variant.cxx11_abi is not None))
    newest = -variant.backend_version[1] if variant.backend_version else 0
    return (unfit, _ARCH_ORDER[variant.framework], *tie, newest)


def _dotted(version: Version | None) -> str:
    return "none" if version is None else f"{version[0]}.{version[1]}"


def supports(declared: Iterable[str], gpu: str) -> bool | None:
    """Return whether declared architectures cover a GPU; None if that cannot be told.

    `declared` is metadata.json's `backend.archs`: `9.0`, `9.0a`, `10.0f`, `8.0+PTX` or `gfx942`.
    """
    archs = list(declared)
    if not archs or not gpu:
        return None
    found = _SM.fullmatch(gpu)
    if found is None:
        return gpu.partition(":")[0] in archs
    capability = (int(found[1]), int(found[2]))
    answers = [_covers(arch, capability) for arch in archs]
    if all(answer is None for answer in answers):
        return None
    return any(answers)


def _covers(arch: str, capability: Version) -> bool | None:
    found = _CUDA_ARCH.fullmatch(arch)
    if found is None:
        return None
    own = (int(found[1]), int(found[2]))
    if found[3] == "a":
        return capability == own
    if found[4] and not found[3]:
        return capability >= own
    return capability[0] == own[0] and capability[1] >= own[1]


@dataclass(frozen=True, slots=True)
class Answer:
    """What would load there, and what stands in the way of something better."""

    loads: str | None
    """The variant that would load; None if the caller falls back to PyTorch."""
    wanted: str | None
    """The variant that upstream would give; None if upstream has none that fits."""
    considered: tuple[Considered, ...]
    obstacles: tuple[str, ...]
    denials: tuple[RuleResult, ...] = field(default=())
    """The rules that deny the wanted variant."""

    def to_json(self) -> Facts:
        """Return the answer as a JSON object."""
        return {
            "loads": self.loads,
            "wanted": self.wanted,
            "obstacles": list(self.obstacles),
            "denials": [result.to_json() for result in self.denials],
            "variants": [
                {"variant": str(item.variant), "fits": item.fits, "reason": item.reason}
                for item in self.considered
            ],
        }


def why(
    upstream: Iterable[str],
    machine: Machine,
    *,
    published: Iterable[str],
    denials: Mapping[str, tuple[RuleResult, ...]] | None = None,
    archs: Mapping[str, tuple[str, ...]] | None = None,
) -> Answer:
    """Say which published variant would load, and why not the one that upstream would give.

    `denials` holds what a policy said about variants that are not published; `archs` what each
    variant's metadata declares.
    """
    served = frozenset(published)
    considered = consider(dict.fromkeys([*upstream, *sorted(served)]), machine)
    fitting = [str(item.variant) for item in considered if item.fits]
    loads = next((name for name in fitting if name in served), None)
    wanted = fitting[0] if fitting else None
    obstacles: list[str] = []
    said: tuple[RuleResult, ...] = ()
    if wanted is None:
        obstacles.append("no variant was built for this machine")
    elif loads != wanted:
        said = (denials or {}).get(wanted, ())
        obstacles.append(
            f"{wanted} was denied: {', '.join(result.rule for result in said)}"
            if said
            else f"{wanted} is not published: nobody pinned it"
        )
    if loads is not None and supports((archs or {}).get(loads, ()), machine.gpu) is False:
        declared = ", ".join((archs or {})[loads])
        obstacles.append(f"{loads} declares {declared} only and refuses to load on {machine.gpu}")
    return Answer(loads, wanted, considered, tuple(obstacles), said)


def uncovered(
    variants: Iterable[str],
    targets: Iterable[Machine],
    *,
    archs: Mapping[str, tuple[str, ...]] | None = None,
) -> tuple[Machine, ...]:
    """Return the machines on which none of the variants would load, or none for their GPU."""
    names = list(variants)
    declared = archs or {}
    return tuple(
        machine
        for machine in targets
        if not any(
            item.fits and supports(declared.get(str(item.variant), ()), machine.gpu) is not False
            for item in consider(names, machine)[:1]
        )
    )
