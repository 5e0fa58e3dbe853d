"""The machines that kernels are mirrored for: `targets:` of kgate.yaml, and the facts about them.

Whether a variant loads on a machine is `kgate_policy.why`'s knowledge; nothing is decided here.
"""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  # pydantic reads the annotation
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, model_validator

from kgate_core.errors import InvalidInput
from kgate_policy.why import Machine, consider, machines, parse_version, supports

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from kgate_core.evidence import Facts


class Target(BaseModel):
    """One kind of machine of the fleet."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    image: str | None = None
    """OCI layout or unpacked image root from which the rest is read, instead of writing it."""
    torch: str = ""
    """Version such as `2.13`."""
    cuda: str | None = None
    rocm: str | None = None
    arch: Literal["x86_64", "aarch64"] = "x86_64"
    """The processor."""
    gpus: tuple[str, ...] = ()
    """Such as `sm_90` or `gfx942`; each needs code of its own."""
    device_images: Path | None = None
    """What the serving image there holds: a file that `kgate scan --device-images` wrote."""

    @model_validator(mode="after")
    def _readable(self) -> Target:
        if self.cuda and self.rocm:
            raise ValueError("a machine has cuda or rocm, not both")
        if self.image is not None:
            if self.torch or self.cuda or self.rocm:
                raise ValueError("give image:, or torch: and the rest, not both")
            return self
        if not self.torch:
            raise ValueError("give torch:, or image: to read it from")
        for text in (self.torch, self.cuda, self.rocm):
            try:
                if text is not None:
                    parse_version(text)
            except InvalidInput as exc:
                raise ValueError(f"{exc.message}: {exc.hint}") from exc
        return self

    def machines(self) -> tuple[Machine, ...]:
        """Return one machine for each GPU, or one without; an image must have been read before."""
        backend = "cuda" if self.cuda else "rocm" if self.rocm else "cpu"
        return machines(
            torch=self.torch,
            backend=backend,
            version=self.cuda or self.rocm,
            cpu=self.arch,
            gpus=self.gpus,
        )


def machine_name(machine: Machine) -> str:
    """Return a machine in one short line, as locks and messages name it."""
    parts = [machine.backend]
    if machine.backend_version:
        parts[0] += " " + ".".join(map(str, machine.backend_version))
    if machine.torch:
        parts.insert(0, "torch " + ".".join(map(str, machine.torch)))
    return ", ".join([*parts, machine.cpu, *([machine.gpu] if machine.gpu else [])])


def serving(
    machine: Machine, variants: Iterable[str], archs: Mapping[str, Sequence[str]]
) -> str | None:
    """Return the variant that the stock client would load there, None if it would load none."""
    first = next((item for item in consider(variants, machine) if item.fits), None)
    if first is None or supports(archs.get(str(first.variant), ()), machine.gpu) is False:
        return None
    return str(first.variant)


def fleet_facts(targets: Sequence[Target], siblings: Mapping[str, Facts]) -> Facts:
    """Return what the rule `targets-covered` asks about; empty without targets.

    `siblings` holds the metadata of each variant that is pinned together.
    """
    if not targets:
        return {}
    return {
        "targets": [item.model_dump(mode="json", exclude_none=True) for item in targets],
        "siblings": {name: declared_archs(metadata) for name, metadata in siblings.items()},
    }


def declared_archs(metadata: Facts) -> list[str]:
    """Return the GPU architectures that a metadata.json declares."""
    backend = metadata.get("backend")
    declared = backend.get("archs") if isinstance(backend, dict) else None
    return [a for a in declared if isinstance(a, str)] if isinstance(declared, list) else []
