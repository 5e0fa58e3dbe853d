"""What of a scan matters to a site: code for GPUs it does not own, and what its SBOM leaves out.

Both answer from a report that is there; nothing is read again. An SBOM lists something if it
carries its sha256: names alone prove nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from kgate_core import strictjson
from kgate_core.errors import InvalidInput
from kgate_scanner.summary import images

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from kgate_core.evidence import ScanReport

MAX_SBOM_BYTES: Final = 256 << 20
_CUDA: Final = re.compile(r"(sm|compute)_(\d+)(\d)([af]?)")
_GFX: Final = re.compile(r"gfx[0-9a-f]{3,5}")
_MAX_DEPTH: Final = 32  # of nested components; writers use two or three


@dataclass(frozen=True, slots=True)
class Share:
    """Device code in bytes after decompression."""

    total: int
    foreign: int
    """Bytes of images that none of the named GPUs can run."""
    targets: Mapping[str, int]
    """Target -> bytes, of the foreign images."""

    def to_json(self) -> dict[str, Any]:
        """Return the numbers, with the share in per cent."""
        share = round(100 * self.foreign / self.total, 1) if self.total else 0.0
        return {
            "bytes": self.total,
            "foreignBytes": self.foreign,
            "foreignPercent": share,
            "foreignTargets": dict(self.targets),
        }


@dataclass(frozen=True, slots=True)
class Unlisted:
    """A file or a device image whose digest an SBOM does not carry."""

    path: str
    kind: str
    digest: str
    target: str = ""
    """Of a device image; empty for a file."""
    offset: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return where it is and what it is."""
        said: dict[str, Any] = {"path": self.path, "kind": self.kind, "digest": self.digest}
        if self.target:
            said |= {"target": self.target, "offset": self.offset}
        return said


def check_gpu(gpu: str) -> str:
    """Return the name of a GPU's architecture; raises InvalidInput if it is none."""
    found = _CUDA.fullmatch(gpu)
    if (found is None or found[1] != "sm") and not _GFX.fullmatch(gpu):
        raise InvalidInput(f"not a GPU architecture: {gpu!r}", hint="write it like sm_90 or gfx942")
    return gpu


def runs_on(target: str, gpu: str) -> bool:
    """Return whether code for `target` can run on a GPU; what is not understood may run.

    Machine code runs on its own and later minor architectures of one major (CUDA C++ Programming
    Guide, "Binary Compatibility"), `a` on its own only; PTX runs on all later ones.
    """
    code, device = _CUDA.fullmatch(target), _CUDA.fullmatch(gpu)
    if code is not None:
        if device is None:
            return False
        built, owned = (int(code[2]), int(code[3])), (int(device[2]), int(device[3]))
        if code[4] == "a":
            return owned == built
        if code[1] == "compute" and not code[4]:
            return owned >= built
        return owned[0] == built[0] and owned >= built
    base = target.partition(":")[0]
    if _GFX.fullmatch(base):
        return base == gpu
    return True


def foreign_share(reports: Iterable[ScanReport], gpus: Iterable[str]) -> Share:
    """Return how much of the device code is for none of these GPUs."""
    owned = tuple(gpus)
    total, foreign = 0, 0
    targets: dict[str, int] = {}
    for report in reports:
        for _, image in images(report.files):
            size, target = int(image.get("size", 0)), str(image.get("target", ""))
            total += size
            if not any(runs_on(target, gpu) for gpu in owned):
                foreign += size
                targets[target] = targets.get(target, 0) + size
    return Share(total, foreign, dict(sorted(targets.items())))


def read_listed(data: bytes) -> frozenset[str]:
    """Return every sha256 (hex) that an SBOM carries: CycloneDX or SPDX 2, both as JSON.

    Raises InvalidInput for anything else.
    """
    document = strictjson.loads(data, what="SBOM", max_bytes=MAX_SBOM_BYTES, floats=True)
    if isinstance(document, dict) and document.get("bomFormat") == "CycloneDX":
        return frozenset(_cyclonedx(document, 0))
    if isinstance(document, dict) and str(document.get("spdxVersion", "")).startswith("SPDX-2"):
        return frozenset(_spdx(document))
    raise InvalidInput(
        "the document is neither CycloneDX nor SPDX 2 in JSON",
        hint="convert it first, for example with `syft convert … -o cyclonedx-json`",
    )


def unlisted(report: ScanReport, listed: frozenset[str]) -> tuple[Unlisted, ...]:
    """Return the files and device images of a report that an SBOM does not list."""
    found = [
        Unlisted(path, str(facts.get("kind")), str(facts["digest"]))
        for path, facts in sorted(report.files.items())
        if _hex(facts["digest"]) not in listed
    ]
    for path, image in images(report.files):
        digest = str(image.get("digest") or "")
        if _hex(digest) not in listed:
            target, offset = str(image.get("target", "")), image.get("offset")
            found.append(Unlisted(path, str(image.get("kind")), digest, target or "?", offset))
    return tuple(found)


def _hex(digest: object) -> str:
    return str(digest).removeprefix("sha256:").lower()


def _cyclonedx(node: Mapping[str, Any], depth: int) -> Iterator[str]:
    if depth > _MAX_DEPTH:
        raise InvalidInput(f"the SBOM nests components more than {_MAX_DEPTH} deep")
    own = node.get("metadata", {}).get("component") if depth == 0 else None
    for component in (*_objects(node.get("components")), *_objects([own])):
        for item in _objects(component.get("hashes")):
            if item.get("alg") == "SHA-256":
                yield str(item.get("content", "")).lower()
        yield from _cyclonedx(component, depth + 1)


def _spdx(document: Mapping[str, Any]) -> Iterator[str]:
    for key in ("files", "packages"):
        for entry in _objects(document.get(key)):
            for item in _objects(entry.get("checksums")):
                if item.get("algorithm") == "SHA256":
                    yield str(item.get("checksumValue", "")).lower()


def _objects(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
