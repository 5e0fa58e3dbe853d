"""Which variant of a mirrored kernel would load on a machine; what an upgrade would lose.

Answers come from the catalog and the lock, with the stock client's own rules; upstream is not
asked. Whether a kernel computes the right numbers there is not known here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kgate_core.evidence import RuleResult
from kgate_mirror_server.inventory import find
from kgate_mirror_server.ports import EvidenceKind
from kgate_policy.why import Answer, Machine, uncovered, why

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kgate_core.digest import Digest
    from kgate_core.lock import Lock
    from kgate_mirror_server.app import Mirror


@dataclass(frozen=True, slots=True)
class Lost:
    """A locked kernel that would fall back to PyTorch on a machine."""

    kernel: str
    machine: Machine


def placement(mirror: Mirror, reference: str, machine: Machine) -> Answer:
    """Say which variant would load there, or why none; raises NotFound."""
    found = find(mirror.catalog, reference)
    newest = max(found.publications, key=lambda item: item.published_at, default=None)
    published = {item.variant: item.evidence for item in newest.variants} if newest else {}
    denied = {
        item.variant: tuple(RuleResult.from_json(reason) for reason in item.reasons)
        for item in found.denials
    }
    evidence = dict(published) | {item.variant: item.evidence for item in found.denials}
    archs = {name: _archs(mirror, kept) for name, kept in evidence.items()}
    names = [*published, *denied]
    return why(names, machine, published=published, denials=denied, archs=archs)


def lost_kernels(lock: Lock, machines: Sequence[Machine]) -> list[Lost]:
    """Return the locked kernels that have no variant for one of the machines."""
    return [
        Lost(f"{kernel.repo}@{kernel.pin}", machine)
        for kernel in lock.kernels
        for machine in uncovered(kernel.variants, machines)
    ]


def _archs(mirror: Mirror, evidence: Mapping[EvidenceKind, Digest]) -> tuple[str, ...]:
    if EvidenceKind.METADATA not in evidence:
        return ()
    backend = mirror.room.metadata(evidence).get("backend", {})
    declared = backend.get("archs", []) if isinstance(backend, dict) else []
    return tuple(arch for arch in declared if isinstance(arch, str))
