"""Writes a CycloneDX document of one kernel variant, down to its device images.

The graph is flat with dependencies (repository -> variant -> files -> device images, and libraries
-> what they need), because converters drop nested components. Equal input gives equal bytes: the
serial number is derived, the time is the caller's. Tables of kernels are too long for a BOM: it
carries their count and digest, and `kernel_table` returns the table itself. No vulnerabilities and
no findings are written here.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import TYPE_CHECKING, Final
from uuid import NAMESPACE_URL, uuid5

from cyclonedx.exception import CycloneDxException
from cyclonedx.model import (
    ExternalReferenceType,
    HashAlgorithm,
    HashType,
    Property,
)
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.bom_ref import BomRef
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.model.dependency import Dependency
from cyclonedx.model.tool import ToolRepository
from cyclonedx.output.json import JsonV1Dot6, JsonV1Dot7

from kgate_core import strictjson
from kgate_core.errors import InvalidInput
from kgate_scanner import libraries
from kgate_scanner import sbom_parts as parts
from kgate_scanner.sbom_subject import SbomSubject
from kgate_scanner.summary import images

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from kgate_core.evidence import Facts, ScanReport
    from kgate_core.kernel import KernelId
    from kgate_core.manifest import FileEntry, Manifest

_TABLE_SCHEMA: Final = "kgate.dev/kernel-table/v1"
_LIBRARY_KINDS: Final = frozenset({"elf-shared-object"})


class Spec(StrEnum):
    """Versions of the CycloneDX specification that can be written."""

    V1_6 = "1.6"
    V1_7 = "1.7"


def build_sbom(
    kernel: KernelId | SbomSubject,
    manifest: Manifest,
    metadata: Facts,
    report: ScanReport,
    *,
    timestamp: datetime,
    spec: Spec = Spec.V1_6,
) -> bytes:
    """Return the document; raises InvalidInput if the report is not about the manifest."""
    if report.subject != manifest.digest:
        raise InvalidInput("the scan report is about another manifest")
    subject = kernel if isinstance(kernel, SbomSubject) else SbomSubject.of_kernel(kernel)
    graph = _Graph(subject, manifest, report)
    graph.add_variant(metadata)
    for entry in manifest.files:
        graph.add_file(entry, report.files.get(entry.path, {}))
    bom = Bom(
        components=graph.components,
        dependencies=graph.dependencies(),
        serial_number=uuid5(
            NAMESPACE_URL, f"{subject.inner_ref} {manifest.digest} {report.scanner}"
        ),
        metadata=BomMetaData(
            timestamp=timestamp,
            component=graph.root,
            tools=ToolRepository(components=[_tool(report.scanner)]),
        ),
    )
    writer = JsonV1Dot6 if spec is Spec.V1_6 else JsonV1Dot7
    try:
        return writer(bom).output_as_string().encode() + b"\n"
    except CycloneDxException as exc:
        raise InvalidInput(f"no CycloneDX document can be written: {exc}") from exc


def kernel_table(report: ScanReport) -> bytes:
    """Return every device kernel with its resources, by image, as canonical JSON."""
    rows = [
        {"path": path, **{key: image[key] for key in _TABLE_KEYS if key in image}}
        for path, image in images(report.files)
    ]
    return strictjson.dumps(
        {"schema": _TABLE_SCHEMA, "subject": str(report.subject), "images": rows}
    )


_TABLE_KEYS: Final = ("section", "offset", "container", "entry", "target", "digest", "kernels")


class _Graph:
    """The components of one document and who depends on whom."""

    def __init__(self, subject: SbomSubject, manifest: Manifest, report: ScanReport) -> None:
        self.subject: Final = subject
        self.components: Final[list[Component]] = []
        self._edges: Final[dict[BomRef, set[BomRef]]] = {}
        self._needed: Final[dict[str, Component]] = {}
        self._files: Final[dict[str, Component]] = {}
        self._shipped: Final = _shipped(report.files)
        found = parts.reference(ExternalReferenceType.DISTRIBUTION, subject.distribution)
        self.root: Final = Component(
            type=ComponentType.LIBRARY,
            name=subject.name,
            group=subject.group,
            version=subject.version,
            bom_ref=subject.ref,
            purl=subject.purl,
            external_references=[] if found is None else [found],
        )
        said = list(_variant_properties(manifest, report))
        if subject.variant is None:
            self._variant = self.root
            self.root.properties.update(said)
        else:
            self._variant = Component(
                type=ComponentType.LIBRARY,
                name=subject.variant,
                version=subject.version,
                bom_ref=subject.inner_ref,
                purl=subject.inner_purl,
                properties=said,
            )

    def add_variant(self, metadata: Facts) -> None:
        """Add the variant with licence, origin, provenance and declared dependencies."""
        for component in (self.root, self._variant):
            component.licenses.update(parts.licences(metadata))
            for kind, key in (
                (ExternalReferenceType.VCS, "source"),
                (ExternalReferenceType.WEBSITE, "upstream"),
            ):
                reference = parts.reference(kind, metadata.get(key))
                if reference is not None:
                    component.external_references.add(reference)
        self._variant.pedigree = parts.pedigree(metadata)
        self._variant.properties.update(parts.metadata_properties(metadata))
        if self._variant is not self.root:
            self._add(self._variant, self.root)
        for name in sorted({str(name) for name in metadata.get("python-depends") or []}):
            self._add_once("pypi", name, name, self._variant)
        for item in metadata.get("kernel-depends") or []:
            repo = str(item["repo-id"])
            self._add_once("huggingface", repo, repo, self._variant)

    def add_file(self, entry: FileEntry, facts: Facts) -> None:
        """Add one file, and for a library what it needs and the device images inside."""
        is_library = facts.get("kind") in _LIBRARY_KINDS
        ref = self.subject.file_ref(entry.path)
        component = Component(
            type=ComponentType.LIBRARY if is_library else ComponentType.FILE,
            name=entry.path,
            version=f"sha256:{entry.digest.hex}",
            bom_ref=ref,
            purl=self.subject.file_purl(entry.path),
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=entry.digest.hex)],
            properties=list(parts.file_properties(entry, facts)),
        )
        self._files[entry.path] = component
        self._add(component, self._variant)
        for image in facts.get("device", {}).get("images", ()):
            self._add(parts.image_component(ref, entry.path, image), component)
        for soname in facts.get("host", {}).get("needed", ()):
            shipped = self._shipped.get(soname)
            if shipped is not None:
                self._edges.setdefault(component.bom_ref, set()).add(self._file_ref(shipped))
            else:
                project = libraries.pypi_project(soname)
                kind = "pypi" if project else "generic"
                self._add_once(kind, project or soname, soname, component)

    def dependencies(self) -> Iterator[Dependency]:
        """Yield an entry for every component, with or without edges."""
        for component in (self.root, *self.components):
            inner = sorted(self._edges.get(component.bom_ref, ()), key=lambda ref: ref.value or "")
            yield Dependency(component.bom_ref, [Dependency(ref) for ref in inner])

    def _file_ref(self, path: str) -> BomRef:
        # References compare by value, so the file may still be ahead of us.
        found = self._files.get(path)
        return found.bom_ref if found is not None else BomRef(self.subject.file_ref(path))

    def _add(self, component: Component, parent: Component) -> None:
        self.components.append(component)
        self._edges.setdefault(parent.bom_ref, set()).add(component.bom_ref)

    def _add_once(self, kind: str, project: str, name: str, parent: Component) -> None:
        # Two sonames may come from one project; each stays a component of its own.
        reference = f"{kind}:{name}"
        if reference not in self._needed:
            entry = libraries.platform_library(name)
            self._needed[reference] = Component(
                type=ComponentType.LIBRARY,
                name=name[: parts.MAX_TEXT],
                bom_ref=reference,
                purl=parts.package_url(kind, project),
                scope=ComponentScope.REQUIRED,
                properties=parts.properties("kgate", {"provided-by": entry and entry.family}),
            )
            self.components.append(self._needed[reference])
        needed = self._needed[reference]
        self._edges.setdefault(parent.bom_ref, set()).add(needed.bom_ref)


def _shipped(files: Mapping[str, Facts]) -> dict[str, str]:
    shipped = {path.rpartition("/")[2]: path for path in sorted(files)}
    for path, facts in sorted(files.items()):
        if soname := facts.get("host", {}).get("soname"):
            shipped[soname] = path
    return shipped


def _variant_properties(manifest: Manifest, report: ScanReport) -> Iterator[Property]:
    table = kernel_table(report)
    said = {
        "manifest": str(manifest.digest),
        "scan:complete": report.complete,
        "device:images": sum(1 for _ in images(report.files)),
        "device:kernels": report.summary.get("device", {}).get("kernels", 0),
        "device:kernel-table": f"sha256:{hashlib.sha256(table).hexdigest()}",
    }
    yield from parts.properties("kgate", said)


def _tool(scanner: str) -> Component:
    name, _, version = scanner.partition("/")
    return Component(type=ComponentType.APPLICATION, name=name, version=version or None)
