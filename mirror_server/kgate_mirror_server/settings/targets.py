"""The machines that kernels are mirrored for: `targets:` of kgate.yaml, and the facts about them.

Whether a variant loads on a machine is `kgate_policy.why`'s knowledge; nothing is decided here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, model_validator

from kgate_core.errors import InvalidInput
from kgate_policy.why import parse_version

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kgate_core.evidence import Facts


class Target(BaseModel):
    """One kind of machine of the fleet."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    torch: str
    """Version such as `2.13`."""
    cuda: str | None = None
    rocm: str | None = None
    arch: Literal["x86_64", "aarch64"] = "x86_64"
    """The processor."""
    gpus: tuple[str, ...] = ()
    """Such as `sm_90` or `gfx942`; each needs code of its own."""

    @model_validator(mode="after")
    def _readable(self) -> Target:
        if self.cuda and self.rocm:
            raise ValueError("a machine has cuda or rocm, not both")
        for text in (self.torch, self.cuda, self.rocm):
            try:
                if text is not None:
                    parse_version(text)
            except InvalidInput as exc:
                raise ValueError(f"{exc.message}: {exc.hint}") from exc
        return self


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
