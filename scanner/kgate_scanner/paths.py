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
from kgate_scanner.scan import DEFAULT_LIMITS, inspect_files, report_on, system_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kgate_core.evidence import ScanReport
    from kgate_core.manifest import Manifest
    from kgate_scanner.isolate import Inspected, ScanLimits
    from kgate_scanner.layers import Image
    from kgate_scanner.resultcache import ResultCache

_BUILD: Final = "build"
_SNAPSHOTS: Final = "snapshots"
_NOT_REST: Final = frozenset({_BUILD, ".git"})


@dataclass(frozen=True, slots=True)
class How:
    """What a scan may cost and where results of earlier ones lie."""

    limits: ScanLimits = DEFAULT_LIMITS
    results: ResultCache | None = None


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


def scan_path(
    path: Path, *, limits: ScanLimits = DEFAULT_LIMITS, results: ResultCache | None = None
) -> tuple[Scanned, ...]:
    """Scan a file, directory or wheel; raises NotFound, or InvalidInput if nothing is there.

    With `results`, only files that are not in that cache are read by the parsers.
    """
    how = How(limits, results)
    if path.is_file():
        return (_scan_file(path, how),)
    if not path.is_dir():
        raise NotFound(f"there is no file or directory {path}")
    scanned = tuple(_scan_directory(path, ".", how))
    if not scanned:
        raise InvalidInput(f"there is no file to scan in {path}")
    return scanned


def _scan_file(path: Path, how: How) -> Scanned:
    if _is_archive(path):
        with tempfile.TemporaryDirectory(prefix="kgate-scan-") as place:
            return _scan_collection(collect_wheel(path, Path(place)), path.name, None, how)
    found = Collection()
    found.add(path.name, path.resolve())
    return _scan_collection(found, path.name, None, how)


def _is_archive(path: Path) -> bool:
    # By its beginning: a library with an archive behind it is a library.
    with path.open("rb") as content:
        return content.read(2) == b"PK" and zipfile.is_zipfile(path)


def _scan_directory(path: Path, name: str, how: How) -> Iterator[Scanned]:
    variant = _variant(path)
    if variant is not None and (path / METADATA).is_file():
        yield _scan_collection(collect_directory(path), name, variant, how)
        return
    if (path / LAYOUT).is_file():
        for image in read_images(path):
            yield from _scan_image(image, name, how)
        return
    if (path / _SNAPSHOTS).is_dir() and (path / "blobs").is_dir():
        for snapshot in sorted((path / _SNAPSHOTS).iterdir()):
            yield from _scan_directory(snapshot, _joined(name, _SNAPSHOTS, snapshot.name), how)
        return
    builds = _builds(path)
    yield from _scan_rest(path, name, _NOT_REST if builds else frozenset(), how)
    for build in builds:
        found = collect_directory(build)
        if found.files:
            inner = _joined(name, _BUILD, build.name)
            yield _scan_collection(found, inner, Variant.parse(build.name), how)


def scan_image(
    image: Image, *, limits: ScanLimits = DEFAULT_LIMITS, results: ResultCache | None = None
) -> tuple[Scanned, ...]:
    """Scan one image, wherever its layers come from.

    Raises InvalidInput if nothing of it is code, IntegrityError if a layer is not the named one.
    """
    scanned = tuple(_scan_image(image, ".", How(limits, results)))
    if not scanned:
        raise InvalidInput(f"there is no file to scan in {image.name}")
    return scanned


def _scan_image(image: Image, name: str, how: How) -> Iterator[Scanned]:
    with tempfile.TemporaryDirectory(prefix="kgate-scan-") as place:
        for variant, found in collect_image(image, Path(place)):
            if not found.files and not found.findings:
                continue
            inner = _joined(name, image.name or ".")
            if variant is not None:
                inner = _joined(inner, _BUILD, variant.name)
            yield _scan_collection(found, inner, variant, how)


def _scan_rest(path: Path, name: str, skip: frozenset[str], how: How) -> Iterator[Scanned]:
    inner = sorted(entry.name for entry in path.iterdir() if entry.is_dir())
    large = bool(inner) and _is_large(path)
    rest = collect_directory(path, skip=frozenset(inner) if large else skip)
    if rest.files:
        yield _scan_collection(rest, name, None, how)
    # Too many files for one manifest: each directory inside is a thing of its own.
    for directory in (path / entry for entry in inner if large and entry not in skip):
        if not directory.is_symlink():
            yield from _scan_directory(directory, _joined(name, directory.name), how)


def _is_large(path: Path) -> bool:
    files = (None for _, _, names in os.walk(path) for _ in names)
    return next(islice(files, MAX_FILES, None), "few") is None


def _scan_collection(found: Collection, name: str, variant: Variant | None, how: How) -> Scanned:
    if how.results is not None:
        return _scan_again(found, name, variant, how.limits, how.results)
    # Digests are made here while the child process looks into the files: each has a processor.
    with ThreadPoolExecutor(1, thread_name_prefix="kgate-digest") as pool:
        digesting = pool.submit(found.read_manifest)
        results = inspect_files(found.sizes, found.open_path, variant=variant, limits=how.limits)
        manifest = digesting.result()
    return _scanned(found, name, variant, manifest, results)


def _scan_again(
    found: Collection,
    name: str,
    variant: Variant | None,
    limits: ScanLimits,
    cache: ResultCache,
) -> Scanned:
    """Look only at files about which no result is kept; keep those that are new."""
    system = system_of(variant)
    before = found.identities()
    manifest = found.read_manifest()
    known = {entry.path: cache.find(entry, system) for entry in manifest.files}
    sizes = {path: found.sizes[path] for path, result in known.items() if result is None}
    new = inspect_files(sizes, found.open_path, variant=variant, limits=limits)
    after = found.identities()
    for path, result in new.items():
        # A file that was replaced meanwhile is not the one that the digest is of.
        if path in after and before.get(path) == after[path]:
            cache.keep(manifest.by_path[path], system, result)
    results = {path: result for path, result in known.items() if result is not None} | new
    return _scanned(found, name, variant, manifest, results)


def _scanned(
    found: Collection,
    name: str,
    variant: Variant | None,
    manifest: Manifest,
    results: Mapping[str, Inspected],
) -> Scanned:
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
