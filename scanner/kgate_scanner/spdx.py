"""Writes SPDX 2.3 (JSON) from a full CycloneDX document of ours.

Files and device images become packages whose purpose is FILE or LIBRARY, because an SPDX file must
carry a SHA-1 (SPDX 2.3, clause 8.4) and ours carry SHA-256 only. Nothing is nested, so nothing is
lost to readers that flatten. Offsets, tools and targets stand in comments. Equal input gives equal
bytes.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Final
from uuid import NAMESPACE_URL, uuid5

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.exception.factory import (
    InvalidLicenseExpressionException,
    InvalidSpdxLicenseException,
)

from kgate_scanner.sbom_profiles import read_document

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

VERSION: Final = "SPDX-2.3"
_DOCUMENT: Final = "SPDXRef-DOCUMENT"
_NOTHING: Final = "NOASSERTION"
_LICENCES: Final = LicenseFactory()


def write_spdx(data: bytes) -> bytes:
    """Return the SPDX document; raises InvalidInput if `data` is not CycloneDX in JSON."""
    document = read_document(data)
    root = document["metadata"]["component"]
    every = [root, *document.get("components", ())]
    inside = {str(item["bom-ref"]) for item in every if _is_inside(item)}
    serial = uuid5(NAMESPACE_URL, f"{document['serialNumber']} {VERSION}")
    tools = document["metadata"].get("tools", {}).get("components", ())
    written = {
        "spdxVersion": VERSION,
        "dataLicense": "CC0-1.0",
        "SPDXID": _DOCUMENT,
        "name": "/".join(str(root[key]) for key in ("group", "name") if root.get(key)),
        "documentNamespace": f"https://kgate.dev/spdx/{serial}",
        "creationInfo": {
            "created": str(document["metadata"]["timestamp"])[:19] + "Z",
            "creators": [f"Tool: {tool['name']}-{tool.get('version', '0')}" for tool in tools],
        },
        "packages": [_package(item) for item in every],
        "relationships": list(_relationships(document, inside)),
        "documentDescribes": [_identity(str(root["bom-ref"]))],
    }
    text = json.dumps(written, indent=2, sort_keys=True, ensure_ascii=False)
    return text.encode("utf-8") + b"\n"


def _identity(reference: str) -> str:
    return f"SPDXRef-{hashlib.sha256(reference.encode()).hexdigest()[:32]}"


def _is_inside(component: Mapping[str, Any]) -> bool:
    """Return whether a component is part of what is described; others are needed by it."""
    properties = {str(item["name"]) for item in component.get("properties", ())}
    return bool(properties & {"kgate:file:kind", "kgate:device:kind", "kgate:manifest"})


def _package(component: Mapping[str, Any]) -> dict[str, Any]:
    package: dict[str, Any] = {
        "SPDXID": _identity(str(component["bom-ref"])),
        "name": str(component["name"]),
        "downloadLocation": _location(component),
        "filesAnalyzed": False,
        "licenseConcluded": _NOTHING,
        "licenseDeclared": _licence(component),
        "copyrightText": _NOTHING,
        "supplier": _NOTHING,
        "primaryPackagePurpose": "FILE" if component["type"] == "file" else "LIBRARY",
    }
    if component.get("version"):
        package["versionInfo"] = str(component["version"])
    sums = [
        {"algorithm": "SHA256", "checksumValue": str(item["content"])}
        for item in component.get("hashes", ())
        if item["alg"] == "SHA-256"
    ]
    if sums:
        package["checksums"] = sums
    if component.get("purl"):
        package["externalRefs"] = [
            {
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl",
                "referenceLocator": str(component["purl"]),
            }
        ]
    comment = "\n".join(_remarks(component))
    if comment:
        package["comment"] = comment
    return package


def _location(component: Mapping[str, Any]) -> str:
    for reference in component.get("externalReferences", ()):
        if reference["type"] == "distribution":
            return str(reference["url"])
    return _NOTHING


def _licence(component: Mapping[str, Any]) -> str:
    for choice in component.get("licenses", ()):
        said = choice.get("expression") or choice.get("license", {}).get("id")
        if said and _is_spdx(str(said)):
            return str(said)
    return _NOTHING


def _is_spdx(text: str) -> bool:
    for read in (_LICENCES.make_with_id, _LICENCES.make_with_expression):
        try:
            read(text)
        except (InvalidSpdxLicenseException, InvalidLicenseExpressionException):
            continue
        return True
    return False


def _remarks(component: Mapping[str, Any]) -> Iterator[str]:
    for choice in component.get("licenses", ()):
        if name := choice.get("license", {}).get("name"):
            yield f"licence as its publisher calls it: {name}"
    for place in component.get("evidence", {}).get("occurrences", ()):
        yield f"at {place['location']}+{place['offset']} in {place['additionalContext']}"
    for item in component.get("properties", ()):
        yield f"{item['name']}={item['value']}"


def _relationships(document: Mapping[str, Any], inside: set[str]) -> Iterator[dict[str, str]]:
    root = str(document["metadata"]["component"]["bom-ref"])
    yield _relation(_DOCUMENT, "DESCRIBES", _identity(root))
    for entry in document.get("dependencies", ()):
        parts = set(map(str, entry.get("dependsOn", ())))
        for reference in sorted(parts):
            holder = str(entry["ref"])
            # A library of the variant that another one needs lies beside it, not in it.
            held = reference in inside and (
                holder == root or reference.startswith((f"{holder}/", f"{holder}#"))
            )
            kind = "CONTAINS" if held else "DEPENDS_ON"
            yield _relation(_identity(holder), kind, _identity(reference))


def _relation(one: str, kind: str, other: str) -> dict[str, str]:
    return {"spdxElementId": one, "relationshipType": kind, "relatedSpdxElement": other}
