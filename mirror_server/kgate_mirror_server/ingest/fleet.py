"""Which locked variant serves each machine of `targets:`; how well it computes is not asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kgate_core.errors import Conflict
from kgate_mirror_server.settings.targets import machine_name, serving

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kgate_core.kernel import Revision
    from kgate_core.lock import LockedKernel
    from kgate_mirror_server.settings.site import Config, Pin


def serve_targets(
    config: Config, pin: Pin, commit: Revision, archs: Mapping[str, Sequence[str]]
) -> dict[str, str | None]:
    """Return the variant for each machine; raises Conflict naming one that none serves.

    `archs` holds each variant with the GPU architectures that it declares.
    """
    found: dict[str, str | None] = {}
    for machine in (each for target in config.targets for each in target.machines()):
        name = machine_name(machine)
        found[name] = serving(machine, archs, archs)
        if found[name] is None and pin.on_missing == "refuse":
            raise Conflict(
                f"{pin}@{commit.short}: no variant serves the target {name}"
                f" (there is {', '.join(sorted(archs))})",
                hint="pin another version or more variants, take the target out, or write"
                " on_missing: fallback to let PyTorch serve it there",
            )
    return found


def covers_targets(kernel: LockedKernel, config: Config) -> bool:
    """Return whether a lock's entry speaks of exactly the machines of kgate.yaml."""
    names = {machine_name(each) for target in config.targets for each in target.machines()}
    return set(kernel.targets) == names
