"""What changed between two scans: device images, kernels, imports, symbols, Python, findings.

Files are matched by their path and device images by target within a file. A library that was
rebuilt without any change of its code still has other bytes: such a file is listed as changed and
says that nothing inside it did. Names only: whether a change is good is a policy's question.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kgate_scanner.summary import images

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kgate_core.evidence import Facts, Finding, ScanReport

_RESOURCES = ("registers", "shared", "stack", "vgpr", "agpr", "sgpr", "scratch", "params")


@dataclass(frozen=True, slots=True)
class Names:
    """The names on one side only, in order."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.removed)

    def to_json(self) -> dict[str, list[str]]:
        """Return both lists."""
        return {"added": list(self.added), "removed": list(self.removed)}


@dataclass(frozen=True, slots=True)
class ChangedKernel:
    """One device kernel of both sides that now needs other resources."""

    path: str
    target: str
    name: str
    before: Mapping[str, int]
    after: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        """Return what it needed and what it needs."""
        return {
            "path": self.path,
            "target": self.target,
            "name": self.name,
            "before": dict(self.before),
            "after": dict(self.after),
        }


@dataclass(frozen=True, slots=True)
class Difference:
    """Two scans side by side; every list is sorted."""

    bytes_before: int
    bytes_after: int
    files: Names
    changed: tuple[str, ...]
    """Files of both sides with other contents."""
    targets: Names
    """GPU architectures over all files."""
    images: Mapping[str, tuple[int, int]]
    """Target -> device images on one side only (added, removed), told by digest."""
    kernels: Names
    """Device and Triton kernels by name, over all files and targets."""
    resources: tuple[ChangedKernel, ...]
    needed: Names
    """Libraries that the dynamic loader is told to load."""
    imports: Names
    """Undefined symbols of all libraries."""
    exports: Names
    modules: Names
    """Python modules that sources import."""
    findings: Names
    """Rule and path of each finding."""
    complete: bool = field(default=True)
    """False if a side was not read to its end: what is missing may be there."""

    @property
    def is_empty(self) -> bool:
        """Whether both sides hold the same files with the same contents."""
        return not (self.files or self.changed)

    def to_json(self) -> dict[str, Any]:
        """Return everything as one JSON object."""
        return {
            "bytes": {"before": self.bytes_before, "after": self.bytes_after},
            "files": {**self.files.to_json(), "changed": list(self.changed)},
            "targets": self.targets.to_json(),
            "images": {
                target: {"added": added, "removed": removed}
                for target, (added, removed) in self.images.items()
            },
            "kernels": {
                **self.kernels.to_json(),
                "changed": [kernel.to_json() for kernel in self.resources],
            },
            "needed": self.needed.to_json(),
            "imports": self.imports.to_json(),
            "exports": self.exports.to_json(),
            "pythonImports": self.modules.to_json(),
            "findings": self.findings.to_json(),
            "complete": self.complete,
        }


def compare_reports(before: ScanReport, after: ScanReport) -> Difference:
    """Return what changed from one scan to the other; raises nothing.

    Two reports of one file each are about the same file, whatever it is called.
    """
    old, new = before.files, after.files
    renamed: dict[str, str] = {}
    if len(old) == len(new) == 1:
        ((path, facts),) = old.items()
        renamed = {path: next(iter(new))}
        old = {renamed[path]: facts}
    return Difference(
        bytes_before=sum(facts["size"] for facts in old.values()),
        bytes_after=sum(facts["size"] for facts in new.values()),
        files=_names(old, new),
        changed=tuple(
            path
            for path in sorted(old.keys() & new.keys())
            if _digest(old, path) != _digest(new, path)
        ),
        targets=_names(_targets(old), _targets(new)),
        images=_changed_images(old, new),
        kernels=_names(_kernel_names(old), _kernel_names(new)),
        resources=_changed_kernels(old, new),
        needed=_names(_host(old, "needed"), _host(new, "needed")),
        imports=_names(_symbols(old, "imports"), _symbols(new, "imports")),
        exports=_names(_symbols(old, "exports"), _symbols(new, "exports")),
        modules=_names(_modules(old), _modules(new)),
        findings=_names(
            (_finding(item, renamed) for item in before.findings),
            (_finding(item, {}) for item in after.findings),
        ),
        complete=before.complete and after.complete and _all_symbols(old) and _all_symbols(new),
    )


def _names(before: Iterable[str], after: Iterable[str]) -> Names:
    old, new = set(before), set(after)
    return Names(tuple(sorted(new - old)), tuple(sorted(old - new)))


def _digest(files: Mapping[str, Facts], path: str) -> str:
    return str(files[path]["digest"])


def _targets(files: Mapping[str, Facts]) -> set[str]:
    return {str(image["target"]) for _, image in images(files) if image.get("target")}


def _changed_images(
    old: Mapping[str, Facts], new: Mapping[str, Facts]
) -> dict[str, tuple[int, int]]:
    before = Counter(_image(image) for _, image in images(old))
    after = Counter(_image(image) for _, image in images(new))
    found: dict[str, tuple[int, int]] = {}
    for side, one_sided in enumerate((after - before, before - after)):
        for (target, _), count in one_sided.items():
            counts = list(found.get(target, (0, 0)))
            counts[side] += count
            found[target] = (counts[0], counts[1])
    return dict(sorted(found.items()))


def _image(image: Facts) -> tuple[str, str]:
    # Without a digest nothing can be said to be equal: its place stands for it.
    return str(image.get("target")), str(image.get("digest") or ("at", image.get("offset")))


def _kernel_names(files: Mapping[str, Facts]) -> set[str]:
    device = {
        str(kernel["name"]) for _, image in images(files) for kernel in image.get("kernels", ())
    }
    sources = (facts.get("python", {}).get("kernels", ()) for facts in files.values())
    return device | {str(kernel["name"]) for kernels in sources for kernel in kernels}


def _changed_kernels(
    old: Mapping[str, Facts], new: Mapping[str, Facts]
) -> tuple[ChangedKernel, ...]:
    before, after = _resources(old), _resources(new)
    return tuple(
        ChangedKernel(*key, before[key], after[key])
        for key in sorted(before.keys() & after.keys())
        if before[key] != after[key]
    )


def _resources(files: Mapping[str, Facts]) -> dict[tuple[str, str, str], dict[str, int]]:
    return {
        (path, str(image.get("target")), str(kernel["name"])): {
            key: kernel[key] for key in _RESOURCES if key in kernel
        }
        for path, image in images(files)
        for kernel in image.get("kernels", ())
    }


def _host(files: Mapping[str, Facts], key: str) -> set[str]:
    return {str(name) for facts in files.values() for name in facts.get("host", {}).get(key, ())}


def _symbols(files: Mapping[str, Facts], key: str) -> set[str]:
    hosts = (facts.get("host", {}).get("symbols", {}) for facts in files.values())
    return {str(name) for symbols in hosts for name in symbols.get(key, ())}


def _all_symbols(files: Mapping[str, Facts]) -> bool:
    hosts = [facts["host"] for facts in files.values() if facts.get("host")]
    # A report of an older scanner holds no names: then their absence says nothing.
    return all(host.get("symbols", {}).get("complete", False) for host in hosts)


def _modules(files: Mapping[str, Facts]) -> set[str]:
    found = (facts.get("python", {}).get("imports", ()) for facts in files.values())
    return {str(name) for names in found for name in names}


def _finding(finding: Finding, renamed: Mapping[str, str]) -> str:
    path = renamed.get(finding.path or "", finding.path)
    return f"{finding.rule} {path}" if path else finding.rule
