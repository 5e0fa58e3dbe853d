"""What an upgrade of the lock would bring: variants, sizes, architectures, kernels, imports.

Scans that are stored are used; a variant that is new here is fetched into the store and scanned,
where nothing refers to it until it is synced. Two scans are compared as `kgate diff` does it.
Nothing is decided, signed or published.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from kgate_core.kernel import KernelId
from kgate_mirror_server.ingest.fetch import fetch_large
from kgate_mirror_server.ingest.resolve import find_locked
from kgate_mirror_server.ports import EvidenceKind
from kgate_scanner.difference import compare_reports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from kgate_core.evidence import Facts, ScanReport
    from kgate_core.lock import Lock, LockedKernel
    from kgate_mirror_server.app import Mirror
    from kgate_mirror_server.ingest.resolve import Source
    from kgate_mirror_server.settings.site import Pin
    from kgate_scanner.difference import Names

_NOT_SCANNED: Final = "was never scanned here"


@dataclass(frozen=True, slots=True)
class Fact:
    """One kind of content that is other than before."""

    name: str
    gone: tuple[str, ...]
    new: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class VariantChange:
    """One variant whose bytes are others."""

    variant: str
    size: tuple[int, int]
    """Bytes before and after."""
    facts: tuple[Fact, ...]
    remark: str = ""
    """Why its content cannot be compared; empty if it was."""


@dataclass(frozen=True, slots=True)
class Change:
    """One pin that means another commit."""

    kernel: str
    commits: tuple[str, str]
    added: tuple[str, ...]
    removed: tuple[str, ...]
    depends: Fact
    variants: tuple[VariantChange, ...] = field(default=())

    def to_json(self) -> Facts:
        """Return the change as a JSON object; sizes in bytes."""
        return {
            "kernel": self.kernel,
            "before": self.commits[0],
            "after": self.commits[1],
            "variantsAdded": list(self.added),
            "variantsRemoved": list(self.removed),
            "depends": _fact_json(self.depends),
            "variants": [
                {
                    "variant": item.variant,
                    "sizeBefore": item.size[0],
                    "sizeAfter": item.size[1],
                    "remark": item.remark,
                    "facts": {fact.name: _fact_json(fact) for fact in item.facts},
                }
                for item in self.variants
            ],
        }

    def lines(self) -> list[str]:
        """Return the change as lines for people."""
        before, after = self.commits
        lines = [f"{self.kernel}: {before[:12]} → {after[:12]}"]
        lines += [f"  + variant {name}" for name in self.added]
        lines += [f"  - variant {name}" for name in self.removed]
        lines += _fact_lines(self.depends, "  ")
        for item in self.variants:
            old, new = item.size
            lines.append(f"  {item.variant}: {old} → {new} bytes ({new - old:+d})")
            lines += [line for fact in item.facts for line in _fact_lines(fact, "    ")]
            if item.remark:
                lines.append(f"    {item.remark}")
            elif not item.facts:
                lines.append("    same device code, kernels, symbols and imports")
        return lines


def lock_changes(
    mirror: Mirror,
    source: Source,
    before: Lock | None,
    after: Lock,
    *,
    tell: Callable[[str], None],
) -> list[Change]:
    """Return what is different for each pin that moved; raises as fetching does."""
    changes = []
    for pin in mirror.config.kernels:
        old, new = (find_locked(lock, mirror.config, pin) for lock in (before, after))
        if old is not None and new is not None and old.variants != new.variants:
            tell(f"comparing {pin}")
            changes.append(_change(mirror, source.of(pin), pin, old, new))
    return changes


def _change(
    mirror: Mirror, source: Source, pin: Pin, old: LockedKernel, new: LockedKernel
) -> Change:
    both = sorted(old.variants.keys() & new.variants.keys())
    moved = [name for name in both if old.variants[name].manifest != new.variants[name].manifest]
    described = source.describe(pin, new.commit, only=set(moved)) if moved else {}
    variants = []
    for name in moved:
        size = (old.variants[name].size, new.variants[name].size)
        earlier = _stored_scan(mirror, old, name)
        later = _stored_scan(mirror, new, name)
        if later is None:
            source.fetched_bytes += fetch_large(
                source.upstream,
                mirror.store,
                pin.ref,
                new.commit,
                described[name],
                source.progress,
            )
            later = mirror.scan(name, described[name].manifest)
        facts = () if earlier is None else compared(earlier, later)
        remark = f"{old.commit.short} {_NOT_SCANNED}" if earlier is None else ""
        variants.append(VariantChange(name, size, facts, remark))
    return Change(
        str(pin),
        (str(old.commit), str(new.commit)),
        tuple(sorted(new.variants.keys() - old.variants.keys())),
        tuple(sorted(old.variants.keys() - new.variants.keys())),
        _fact("depends", old.depends, new.depends),
        tuple(variants),
    )


def _stored_scan(mirror: Mirror, locked: LockedKernel, name: str) -> ScanReport | None:
    kernel = KernelId(locked.origin, locked.repo_type, locked.repo, locked.commit, name)
    found = mirror.room.found(kernel, locked.lane)
    if found is None or EvidenceKind.SCAN not in found:
        return None
    if found.get(EvidenceKind.MANIFEST) != locked.variants[name].manifest:
        return None
    return mirror.room.scan(found)


def compared(before: ScanReport, after: ScanReport) -> tuple[Fact, ...]:
    """Return every kind of content in which two scans differ."""
    found = compare_reports(before, after)
    images = {
        target: f"{target} ({added} images new, {removed} gone)"
        for target, (added, removed) in found.images.items()
    }
    facts = (
        _names("architectures", found.targets),
        _names("kernels", found.kernels),
        Fact("device code", (), tuple(images.values())),
        Fact("resources", (), tuple(f"{k.target} {k.name}" for k in found.resources)),
        _names("libraries", found.needed),
        _names("symbols", found.imports),
        _names("exports", found.exports),
        _names("imports", found.modules),
        _names("findings", found.findings),
    )
    return tuple(fact for fact in facts if fact.gone or fact.new)


def _names(name: str, found: Names) -> Fact:
    return Fact(name, found.removed, found.added)


def _fact(name: str, old: Iterable[str], new: Iterable[str]) -> Fact:
    before, after = set(old), set(new)
    return Fact(name, tuple(sorted(before - after)), tuple(sorted(after - before)))


def _fact_json(fact: Fact) -> Facts:
    return {"gone": list(fact.gone), "new": list(fact.new)}


def _fact_lines(fact: Fact, indent: str) -> list[str]:
    return [f"{indent}+ {fact.name}: {text}" for text in fact.new] + [
        f"{indent}- {fact.name}: {text}" for text in fact.gone
    ]
