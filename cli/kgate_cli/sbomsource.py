"""The full SBOM of whatever a person names, and digests of its files that it does not hold."""

from __future__ import annotations

import hashlib
import os
import zipfile
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kgate_core.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kgate_cli.output import Output
    from kgate_core.digest import Digest
    from kgate_core.manifest import Manifest
    from kgate_core.vulnerabilities import VulnerabilityReport
    from kgate_mirror_server.app import Mirror
    from kgate_mirror_server.ports import EvidenceKind
    from kgate_scanner.paths import Scanned

_CHUNK: Final = 1 << 20  # bytes


@dataclass(frozen=True, slots=True)
class Named:
    """One full CycloneDX document and what may be added to it."""

    data: bytes
    sha512: Mapping[str, str] = field(default_factory=dict)
    """`sha256:…` of a file -> hex of its SHA-512; empty unless it was asked for."""
    vulnerabilities: VulnerabilityReport | None = None


def read_sbom(  # what was asked for, and how to get at it
    named: str,
    variant: str | None,
    config_path: Path,
    access: dict[str, Any],
    output: Output,
    *,
    sha512: bool,
) -> Named:
    """Return the document of a path or `oci://` image (scanned now) or a mirrored kernel's own.

    `access` is what `image_options` made of the options. Raises NotFound if nothing, or more than
    one variant, is meant.
    """
    path = Path(named)
    if named.startswith("oci://"):
        return _of_image(named, variant, access, output)
    if path.exists():
        return _of_path(path, variant, output, sha512=sha512)
    return _stored(named, variant, config_path, sha512=sha512)


def _of_path(path: Path, variant: str | None, output: Output, *, sha512: bool) -> Named:
    from kgate_mirror_server.app import SBOM_TIME
    from kgate_scanner.paths import scan_path
    from kgate_scanner.sbom import build_sbom
    from kgate_scanner.sbom_subject import SbomSubject

    with output.progress(f"scanning {path}"):
        scanned = {item.variant or item.name: item for item in scan_path(path)}
    name = _choose(str(path), variant, sorted(scanned))
    item = scanned[name]
    title = path.resolve().name
    subject = SbomSubject.of_path(title, item.manifest, None if name in {".", title} else name)
    data = build_sbom(
        subject, item.manifest, item.metadata, item.report, timestamp=_time(SBOM_TIME)
    )
    return Named(data, dict(_hash_path(path, item)) if sha512 else {})


def _of_image(named: str, variant: str | None, access: dict[str, Any], output: Output) -> Named:
    from kgate_cli.scanning import scan_target
    from kgate_mirror_server.app import SBOM_TIME
    from kgate_scanner.sbom import build_sbom
    from kgate_scanner.sbom_subject import SbomSubject

    found = scan_target(named, access, output)
    scanned = {item.variant or item.name: item for item in found}
    item = scanned[_choose(named, variant, sorted(scanned))]
    subject = SbomSubject.of_path(named.removeprefix("oci://"), item.manifest, item.variant)
    data = build_sbom(
        subject, item.manifest, item.metadata, item.report, timestamp=_time(SBOM_TIME)
    )
    return Named(data)


def _time(otherwise: datetime) -> datetime:
    """Return SOURCE_DATE_EPOCH, or the fixed time that makes documents reproducible."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    return datetime.fromtimestamp(int(epoch), UTC) if epoch.isdecimal() else otherwise


def _hash_path(path: Path, item: Scanned) -> Iterator[tuple[str, str]]:
    wanted = {entry.path: str(entry.digest) for entry in item.manifest.files}
    if path.is_file() and zipfile.is_zipfile(path) and path.name.endswith(".whl"):
        with zipfile.ZipFile(path) as archive:
            for name in wanted.keys() & set(archive.namelist()):
                with archive.open(name) as stream:
                    yield from _pair(iter(lambda: stream.read(_CHUNK), b""), wanted[name])
        return
    for name, digest in wanted.items():
        place = path if path.is_file() else path / item.name / name
        if place.is_file():  # what lies in a layer of an image is not a file here
            with place.open("rb") as stream:
                yield from _pair(iter(lambda: stream.read(_CHUNK), b""), digest)


def _pair(chunks: Iterator[bytes], digest: str) -> Iterator[tuple[str, str]]:
    first, second = hashlib.sha256(), hashlib.sha512()
    for chunk in chunks:
        first.update(chunk)
        second.update(chunk)
    if f"sha256:{first.hexdigest()}" != digest:
        raise InvalidInput("a file changed while it was read", hint="run the command again")
    yield digest, second.hexdigest()


def _stored(reference: str, variant: str | None, config_path: Path, *, sha512: bool) -> Named:
    from kgate_cli.options import open_mirror
    from kgate_core.manifest import Manifest
    from kgate_mirror_server.ports import EvidenceKind

    if not config_path.exists():
        raise NotFound(
            f"{reference} is neither a path here nor, without {config_path}, a mirrored kernel",
            hint="give a path that exists, or the site's configuration with --config",
        )
    with open_mirror(config_path) as mirror:
        evidence = _evidence(mirror, reference, variant)
        manifest = Manifest.parse(mirror.room.read(evidence[EvidenceKind.MANIFEST]))
        return Named(
            mirror.room.read(evidence[EvidenceKind.SBOM]),
            dict(_hash_stored(mirror, manifest)) if sha512 else {},
            mirror.room.vulnerabilities(evidence),
        )


def _hash_stored(mirror: Mirror, manifest: Manifest) -> Iterator[tuple[str, str]]:
    for entry in manifest.files:
        if mirror.store.has(entry.digest):  # a denied kernel's files may be gone
            with mirror.store.open(entry.digest) as stream:
                yield from _pair(iter(lambda: stream.read(_CHUNK), b""), str(entry.digest))


def _evidence(mirror: Mirror, reference: str, variant: str | None) -> Mapping[EvidenceKind, Digest]:
    from kgate_mirror_server.inventory import find
    from kgate_mirror_server.ports import EvidenceKind

    found = find(mirror.catalog, reference)
    by_digest = reference.startswith("sha256:")
    known = {
        item.variant: item.evidence
        for publication in found.publications
        for item in publication.variants
        if not by_digest or str(item.manifest) == reference
    } | {item.variant: item.evidence for item in found.denials}
    complete = {name: kinds for name, kinds in known.items() if EvidenceKind.SBOM in kinds}
    return complete[_choose(reference, variant, sorted(complete))]


def _choose(what: str, variant: str | None, names: list[str]) -> str:
    if variant is not None and variant in names:
        return variant
    if variant is None and len(names) == 1:
        return names[0]
    raise NotFound(
        f"{what}: {'no such variant' if variant else 'several variants'}",
        hint=f"name one with --variant: {', '.join(names) or 'there is none with an SBOM'}",
    )
