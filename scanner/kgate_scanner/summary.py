"""What the facts of all files together say: the `summary` of a report.

Counts and lists for people and policies. It adds nothing that is not in the files' facts.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from kgate_core.evidence import Severity
from kgate_scanner.caches import find_caches

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from kgate_core.evidence import Facts, Finding
    from kgate_core.kernel import Variant

_BACKENDS: Final = {
    "cubin": "cuda",
    "ptx": "cuda",
    "lto-ir": "cuda",
    "hsaco": "rocm",
    "spirv": "xpu",
    "zebin": "xpu",
    "device-archive": "xpu",
    "metallib": "metal",
}
"""Kinds of device images and the backend that variants name for them."""


def images(files: Mapping[str, Facts]) -> Iterator[tuple[str, Facts]]:
    """Yield every device image with the path of its file."""
    for path, facts in sorted(files.items()):
        for image in facts.get("device", {}).get("images", ()):
            yield path, image


def device_archs(files: Mapping[str, Facts]) -> dict[str, set[str]]:
    """Return the architectures found, by backend as variants name it (`cuda`, `rocm`, `xpu`)."""
    found: dict[str, set[str]] = {}
    for _, image in images(files):
        backend = _BACKENDS.get(str(image.get("kind")))
        if backend is not None and image.get("target"):
            found.setdefault(backend, set()).add(str(image["target"]))
    return found


def summarise(
    files: Mapping[str, Facts], findings: Sequence[Finding], variant: Variant | None
) -> Facts:
    """Return the summary of one scan."""
    hosts: list[Mapping[str, Any]] = [f["host"] for f in files.values() if f.get("host")]
    sources: list[Mapping[str, Any]] = [f["python"] for f in files.values() if f.get("python")]
    every = [image for _, image in images(files)]
    counts = Counter(finding.severity for finding in findings)
    caches = find_caches(files)
    return {
        "variant": None if variant is None else variant.name,
        "files": len(files),
        "bytes": sum(facts["size"] for facts in files.values()),
        "kinds": dict(sorted(Counter(facts["kind"] for facts in files.values()).items())),
        "host": {
            "libraries": len(hosts),
            "machines": _union(facts.get("machine") for facts in hosts),
            "needed": _union(name for facts in hosts for name in facts.get("needed", ())),
            "versions": _newest(hosts),
            "torchAbi": _union(facts.get("torchAbi") for facts in hosts),
            "dangerous": _union(
                name
                for facts in hosts
                for names in facts.get("dangerous", {}).values()
                for name in names
            ),
        },
        "device": {
            "images": len(every),
            "archs": {name: sorted(archs) for name, archs in device_archs(files).items()},
            "targets": _union(name for names in device_archs(files).values() for name in names),
            "kernels": sum(image.get("kernelCount", 0) for image in every),
        },
        "python": {
            "files": len(sources),
            "imports": _union(name for facts in sources for name in facts.get("imports", ())),
            "kernels": sum(len(facts.get("kernels", ())) for facts in sources),
        },
        "findings": {level.label: counts[level] for level in Severity},
        **({"caches": caches} if caches else {}),
    }


def _union(values: Iterable[str | None]) -> list[str]:
    return sorted({value for value in values if value is not None})


def _newest(hosts: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    newest: dict[str, str] = {}
    for facts in hosts:
        for family, number in facts.get("versions", {}).items():
            newest[family] = max(newest.get(family, "0"), number, key=_as_number)
    return dict(sorted(newest.items()))


def _as_number(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))
