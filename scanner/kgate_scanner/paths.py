"""Scans what lies on a disk: library, variant, repository, Hub cache, wheel, image or any tree.

It finds out which of these a path is and gives one report per variant (and one for the rest). What
a registry or an upstream offers is fetched elsewhere.
"""

from __future__ import annotations

import os
import tempfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kgate_core.errors import InvalidInput, NotFound
from kgate_core.kernel import Variant
from kgate_core.manifest import MAX_FILES
from kgate_scanner.collection import Collection, collect_directory, collect_wheel
from kgate_scanner.files import METADATA
from kgate_scanner.layers import LAYOUT, collect_image, read_images
from kgate_scanner.scan import DEFAULT_LIMITS, inspect_files, report_on

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kgate_core.evidence import ScanReport
    from kgate_core.manifest import Manifest
    from kgate_scanner.isolate import ScanLimits
    from kgate_scanner.layers import Image

_BUILD: Final = "build"
_SNAPSHOTS: Final = "snapshots"
_NOT_REST: Final = frozenset({_BUILD, ".git"})


@dataclass(frozen=True, slots=True)
class Scanned:
    """One report and what it is about."""

    name: str
    """Where it is, relative to the path that was given; `.` for the path itself."""
    variant: str | None
    manifest: Manifest
    report: ScanReport

    @property
    def metadata(self) -> dict[str, Any]:
        """The variant's metadata.json as it was read, empty if there is none or it is broken."""
        found = self.report.files.get(METADATA, {}).get("metadata", {})
        return dict(found)


def scan_path(path: Path, *, limits: ScanLimits = DEFAULT_LIMITS) -> tuple[Scanned, ...]:
    """Scan a file, directory or wheel; raises NotFound, or InvalidInput if nothing is there."""
    if path.is_file():
        return (_scan_file(path, limits),)
    if not path.is_dir():
        raise NotFound(f"there is no file or directory {path}")
    scanned = tuple(_scan_directory(path, ".", limits))
    if not scanned:
        raise InvalidInput(f"there is no file to scan in {path}")
    return scanned


def _scan_file(path: Path, limits: ScanLimits) -> Scanned:
    if _is_archive(path):
        with tempfile.TemporaryDirectory(prefix="kgate-scan-") as place:
            return _scan_collection(collect_wheel(path, Path(place)), path.name, None, limits)
    found = Collection()
    found.add(path.name, path.resolve())
    return _scan_collection(found, path.name, None, limits)


def _is_archive(path: Path) -> bool:
    # By its beginning: a library with an archive behind it is a library.
    with path.open("rb") as content:
        return content.read(2) == b"PK" and zipfile.is_zipfile(path)


def _scan_directory(path: Path, name: str, limits: ScanLimits) -> Iterator[Scanned]:
    variant = _variant(path)
    if variant is not None and (path / METADATA).is_file():
        yield _scan_collection(collect_directory(path), name, variant, limits)
        return
    if (path / LAYOUT).is_file():
        for image in read_images(path):
            yield from _scan_image(image, name, limits)
        return
    if (path / _SNAPSHOTS).is_dir() and (path / "blobs").is_dir():
        for snapshot in sorted((path / _SNAPSHOTS).iterdir()):
            yield from _scan_directory(snapshot, _joined(name, _SNAPSHOTS, snapshot.name), limits)
        return
    builds = _builds(path)
    yield from _scan_rest(path, name, _NOT_REST if builds else frozenset(), limits)
    for build in builds:
        found = collect_directory(build)
        if found.files:
            inner = _joined(name, _BUILD, build.name)
            yield _scan_collection(found, inner, Variant.parse(build.name), limits)


def scan_image(image: Image, *, limits: ScanLimits = DEFAULT_LIMITS) -> tuple[Scanned, ...]:
    """Scan one image, wherever its layers come from.

    Raises InvalidInput if nothing of it is code, IntegrityError if a layer is not the named one.
    """
    scanned = tuple(_scan_image(image, ".", limits))
    if not scanned:
        raise InvalidInput(f"there is no file to scan in {image.name}")
    return scanned


def _scan_image(image: Image, name: str, limits: ScanLimits) -> Iterator[Scanned]:
    with tempfile.TemporaryDirectory(prefix="kgate-scan-") as place:
        for variant, found in collect_image(image, Path(place)):
            if not found.files and not found.findings:
                continue
            inner = _joined(name, image.name or ".")
            if variant is not None:
                inner = _joined(inner, _BUILD, variant.name)
            yield _scan_collection(found, inner, variant, limits)


def _scan_rest(
    path: Path, name: str, skip: frozenset[str], limits: ScanLimits
) -> Iterator[Scanned]:
    inner = sorted(entry.name for entry in path.iterdir() if entry.is_dir())
    large = bool(inner) and _is_large(path)
    rest = collect_directory(path, skip=frozenset(inner) if large else skip)
    if rest.files:
        yield _scan_collection(rest, name, None, limits)
    # Too many files for one manifest: each directory inside is a thing of its own.
    for directory in (path / entry for entry in inner if large and entry not in skip):
        if not directory.is_symlink():
            yield from _scan_directory(directory, _joined(name, directory.name), limits)


def _is_large(path: Path) -> bool:
    files = (None for _, _, names in os.walk(path) for _ in names)
    return next(islice(files, MAX_FILES, None), "few") is None


def _scan_collection(
    found: Collection, name: str, variant: Variant | None, limits: ScanLimits
) -> Scanned:
    # Digests are made here while the child process looks into the files: each has a processor.
    with ThreadPoolExecutor(1, thread_name_prefix="kgate-digest") as pool:
        digesting = pool.submit(found.read_manifest)
        results = inspect_files(found.sizes, found.open_path, variant=variant, limits=limits)
        manifest = digesting.result()
    report = report_on(
        manifest, results, variant=variant, extra=found.findings, complete=found.complete
    )
    return Scanned(name, variant.name if variant else None, manifest, report)


def _builds(path: Path) -> list[Path]:
    if not (path / _BUILD).is_dir():
        return []
    return sorted(
        entry for entry in (path / _BUILD).iterdir() if entry.is_dir() and _variant(entry)
    )


def _variant(path: Path) -> Variant | None:
    try:
        return Variant.parse(path.resolve().name)
    except InvalidInput:
        return None


def _joined(*parts: str) -> str:
    return "/".join(part for part in parts if part != ".") or "."
