"""Pieces of a CycloneDX document: components, properties and references from facts.

Everything here was written by a publisher or read out of a file: it is cut, checked against what
the schema accepts, or left out. See `sbom` for how the pieces hang together.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any, Final

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import (
    ExternalReference,
    ExternalReferenceType,
    HashAlgorithm,
    HashType,
    Property,
    XsUri,
)
from cyclonedx.model.component import Commit, Component, ComponentType, Pedigree
from cyclonedx.model.component_evidence import ComponentEvidence, Occurrence
from packageurl import PackageURL

from kgate_core.errors import InvalidInput
from kgate_core.kernel import KernelRef

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from kgate_core.evidence import Facts
    from kgate_core.manifest import FileEntry

MAX_TEXT: Final = 1024  # characters of one value
_WEB: Final = re.compile(
    r"(?:git\+)?https?://[A-Za-z0-9.-]+(?::[0-9]{1,5})?"
    r"(?:/(?:[A-Za-z0-9._~:/?@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*(?:#[A-Za-z0-9._~/?=-]*)?)?"
)


def image_component(parent: str, path: str, image: Mapping[str, Any]) -> Component:
    """Return the component of one device image with its digest and its place in a file."""
    digest = str(image.get("digest", "")).removeprefix("sha256:")
    place = f"{image['container']}.{image['entry']}"
    kernels = sorted(str(kernel["name"]) for kernel in image.get("kernels", ()))
    said = {
        "kind": image["kind"],
        "target": image.get("target"),
        "container-format": image.get("containerFormat"),
        "compression": image.get("compression"),
        "size": image["size"],
        "stored-size": image["storedSize"],
        "toolkit": image.get("toolkit"),
        "options": image.get("options"),
        "debug": image.get("debug"),
        "relocatable": image.get("relocatable"),
        "kernels": image.get("kernelCount", len(kernels)),
        "kernels-digest": _names_digest(kernels) if kernels else None,
    }
    found = properties("kgate:device", said)
    for tool in image.get("tools", ()):
        text = " ".join(str(tool[key]) for key in ("name", "version", "build") if tool.get(key))
        found.append(Property(name="kgate:device:tool", value=text[:MAX_TEXT]))
    return Component(
        type=ComponentType.FILE,
        name=f"{image.get('target') or 'device'} {image['kind']}",
        version=f"sha256:{digest}" if digest else None,
        bom_ref=f"{parent}#{place}",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)] if digest else [],
        evidence=ComponentEvidence(
            occurrences=[
                Occurrence(
                    location=path,
                    offset=int(image["offset"]),
                    additional_context=str(image.get("section") or "outside all sections"),
                )
            ]
        ),
        properties=found,
    )


def metadata_properties(metadata: Facts) -> Iterator[Property]:
    """Yield what metadata.json says about the builder and the backend."""
    backend = metadata.get("backend") or {}
    provenance = metadata.get("provenance") or {}
    builder = provenance.get("kernel-builder") or {}
    source = provenance.get("kernel") or {}
    said = {
        "id": metadata.get("id"),
        "version": metadata.get("version"),
        "backend": backend.get("type"),
        "backend:archs": " ".join(map(str, backend.get("archs") or [])),
        "provenance:builder": builder.get("version"),
        "provenance:builder:commit": builder.get("commit") or builder.get("sha"),
        "provenance:builder:dirty": builder.get("dirty"),
        "provenance:kernel:dirty": source.get("dirty"),
    }
    yield from properties("kgate:metadata", said)


def file_properties(entry: FileEntry, facts: Facts) -> Iterator[Property]:
    """Yield what the scan says about one file."""
    host = facts.get("host") or {}
    said = {
        "kind": facts.get("kind"),
        "size": entry.size,
        "build-id": host.get("buildId"),
        "machine": host.get("machine"),
        "manylinux": host.get("manylinux"),
        "torch-abi": host.get("torchAbi"),
        "runpath": ":".join([*host.get("rpath", ()), *host.get("runpath", ())]),
        "compilers": "; ".join(host.get("compilers", ())),
    }
    yield from properties("kgate:file", said)


def properties(prefix: str, said: Mapping[str, object]) -> list[Property]:
    """Return properties `<prefix>:<key>` for everything that is known."""
    found = []
    for key, value in said.items():
        if value is None or value == "":
            continue
        text = str(value).lower() if isinstance(value, bool) else str(value)
        found.append(Property(name=f"{prefix}:{key}", value=text[:MAX_TEXT]))
    return found


def _names_digest(names: Iterable[str]) -> str:
    text = "\n".join(names).encode("utf-8", "backslashreplace")
    return f"sha256:{hashlib.sha256(text).hexdigest()}"


def licences(metadata: Facts) -> list[Any]:
    """Return the licence of metadata.json as an SPDX id, an expression or a name."""
    text = metadata.get("license")
    return [LicenseFactory().make_from_string(text[:MAX_TEXT])] if text else []


def pedigree(metadata: Facts) -> Pedigree | None:
    """Return the source commit that the publisher names."""
    source = (metadata.get("provenance") or {}).get("kernel") or {}
    commit = source.get("commit") or source.get("sha")
    return Pedigree(commits=[Commit(uid=str(commit)[:MAX_TEXT])]) if commit else None


def reference(kind: ExternalReferenceType, url: object) -> ExternalReference | None:
    """Return an external reference, None for what is no address of the web."""
    # The schema wants an IRI, and what a publisher wrote may be anything.
    if not isinstance(url, str) or len(url) > MAX_TEXT or _WEB.fullmatch(url) is None:
        return None
    return ExternalReference(type=kind, url=XsUri(url))


def package_url(kind: str, name: str) -> PackageURL | None:
    """Return the package URL of a name from outside, None if no package can be called so."""
    try:
        if kind == "huggingface":
            repo = KernelRef.parse(name)
            return PackageURL(kind, repo.org, repo.name)
        return PackageURL(kind, name=name)
    except (InvalidInput, ValueError):
        return None  # not a name that a package can have
