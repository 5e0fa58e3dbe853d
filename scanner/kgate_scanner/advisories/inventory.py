"""What of one scanned variant advisories can be about: its parts, by the names they bear.

Everything comes from the manifest and the scan report; no file is read. Libraries that a variant
needs but does not ship are the platform's: their versions are not known here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kgate_scanner.advisories.model import Kind
from kgate_scanner.advisories.products import PRODUCTS
from kgate_scanner.advisories.purls import project
from kgate_scanner.advisories.versions import parse_version
from kgate_scanner.libraries import pypi_project
from kgate_scanner.summary import images

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kgate_core.evidence import Facts, ScanReport
    from kgate_core.kernel import KernelId
    from kgate_scanner.advisories.versions import Version

_TOOLKITS: Final = {"cubin": "cuda", "ptx": "cuda", "lto-ir": "cuda", "hsaco": "rocm"}
_FILE_VERSION: Final = re.compile(r"\.so\.(\d+(?:\.\d+)+)$")
_PREFIX: Final = re.compile(r"^[A-Za-z-]+(?=\d)")  # roc-7.1.1


@dataclass(frozen=True, slots=True)
class Part:
    """One thing with a name and a version."""

    kind: Kind
    name: str
    version: Version | None
    """None if it cannot be told."""
    written: str
    places: frozenset[str]


@dataclass(frozen=True, slots=True)
class Inventory:
    """The parts of one variant."""

    repo: str
    """`org/name` in lower case; empty for files that are no mirrored kernel."""
    origin: str
    commit: str
    variant: str
    files: Mapping[str, frozenset[str]]
    """Digest of a file to its paths; the manifest's digest to no path: it is the whole."""
    images: Mapping[str, frozenset[str]]
    build_ids: Mapping[str, frozenset[str]]
    parts: tuple[Part, ...]
    linked: frozenset[str]
    """PyPI projects of libraries that it ships or needs."""


def take_inventory(report: ScanReport, kernel: KernelId | None = None) -> Inventory:
    """Return the parts that a report names; `kernel` is the upstream's commit, where known."""
    files: dict[str, set[str]] = {str(report.subject): set()}
    build_ids: dict[str, set[str]] = {}
    for path, facts in report.files.items():
        files.setdefault(str(facts.get("digest")), set()).add(path)
        if build_id := _host(facts).get("buildId"):
            build_ids.setdefault(str(build_id), set()).add(path)
    found: dict[str, set[str]] = {}
    for path, image in images(report.files):
        if image.get("digest"):
            found.setdefault(str(image["digest"]), set()).add(path)
    return Inventory(
        "" if kernel is None else str(kernel.repo).lower(),
        "" if kernel is None else kernel.origin,
        "" if kernel is None else str(kernel.revision),
        "" if kernel is None else kernel.variant,
        _frozen(files),
        _frozen(found),
        _frozen(build_ids),
        (*_toolkits(report), *_packages(report)),
        frozenset(_linked(report)),
    )


def _toolkits(report: ScanReport) -> Iterator[Part]:
    found: dict[tuple[str, str], set[str]] = {}
    for path, image in images(report.files):
        name = _TOOLKITS.get(str(image.get("kind")))
        if name is not None:
            found.setdefault((name, str(image.get("toolkit") or "")), set()).add(path)
    for (name, written), places in sorted(found.items()):
        version = parse_version(_PREFIX.sub("", written))
        yield Part(Kind.TOOLKIT, name, version, written, frozenset(places))


def _packages(report: ScanReport) -> Iterator[Part]:
    for path, facts in sorted(report.files.items()):
        for name in _own_names(path, facts):
            known = project_of(name)
            if known is not None:
                version = _FILE_VERSION.search(path)
                written = version[1] if version is not None else ""
                yield Part(Kind.PACKAGE, known, parse_version(written), written, frozenset((path,)))
                break


def _linked(report: ScanReport) -> Iterator[str]:
    for path, facts in report.files.items():
        for name in (*_own_names(path, facts), *_host(facts).get("needed", ())):
            if (known := project_of(str(name))) is not None:
                yield known


def project_of(soname: str) -> str | None:
    """Return the PyPI project of a library's name in normal form, None if it is not known."""
    known = pypi_project(soname)
    if known is not None:
        return project(known)
    return next(
        (item.name for item in PRODUCTS if item.soname and soname.startswith(item.soname)), None
    )


def _own_names(path: str, facts: Facts) -> tuple[str, ...]:
    host = _host(facts)
    if not host:
        return ()
    return (str(host.get("soname") or ""), path.rpartition("/")[2])


def _host(facts: Facts) -> Facts:
    host = facts.get("host")
    return host if isinstance(host, dict) else {}


def _frozen(found: Mapping[str, set[str]]) -> dict[str, frozenset[str]]:
    return {name: frozenset(places) for name, places in found.items()}
