"""Other views of a CycloneDX document of ours: flat for inventories, and with BSI's fields.

Both are made from the full document alone (and, for BSI, digests that it does not hold), so they
can be made at any time from what was attested, with equal bytes for equal input. Nothing is
scanned here.

* `inventory`: what inventories and converters keep. Every component stands at the top with a
  package URL and a unique name; occurrences, pedigree and our own properties are left out.
* `bsi`: BSI TR-03183-2 v2.1.0, section 5: creators, file names, SHA-512 of each file, kinds of
  file, licences with their standing, and no vulnerabilities (section 3.1).
"""

from __future__ import annotations

import json
import re
from copy import deepcopy
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final
from uuid import NAMESPACE_URL, uuid5

from packageurl import PackageURL

from kgate_core import strictjson
from kgate_core.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_EMAIL: Final = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
_WEB: Final = re.compile(r"https?://[^\s]+")
_KEPT: Final = ("type", "bom-ref", "group", "name", "version", "hashes", "licenses", "purl")
_ARCHIVES: Final = frozenset({"archive", "static-archive", "device-archive", "offload-bundle"})
_STRUCTURED: Final = frozenset({"metadata", "signature"}) | _ARCHIVES
_EXECUTABLE: Final = frozenset(
    {
        "elf-shared-object",
        "elf-object",
        "elf-program",
        "elf-foreign",
        "os-kernel-module",
        "pe",
        "mach-o",
        "python",
        "python-bytecode",
        "script",
        "other-code",
        "device-code",
        "cubin",
        "ptx",
        "lto-ir",
        "hsaco",
        "spirv",
        "zebin",
        "metallib",
    }
)


class Profile(StrEnum):
    """Which view of a bill of materials is wanted."""

    FULL = "full"
    INVENTORY = "inventory"
    BSI = "bsi"


def read_document(data: bytes) -> dict[str, Any]:
    """Parse a CycloneDX document; raises InvalidInput."""
    document = strictjson.loads(data, what="SBOM", max_bytes=len(data), floats=True)
    if not isinstance(document, dict) or document.get("bomFormat") != "CycloneDX":
        raise InvalidInput("the document is not CycloneDX in JSON")
    return document


def as_inventory(data: bytes) -> bytes:
    """Return the flat view of a full document; raises InvalidInput."""
    document = deepcopy(read_document(data))
    root = document["metadata"]["component"]
    document["metadata"]["component"] = _kept(root)
    document["components"] = [_kept(item, root) for item in document.get("components", ())]
    return _written(document, Profile.INVENTORY)


def as_bsi(data: bytes, *, creator: str, sha512: Mapping[str, str]) -> bytes:
    """Return the view with BSI's fields; raises InvalidInput.

    `creator` is the e-mail or web address of who makes the document; `sha512` maps the digest
    (`sha256:…`) of a file to the hex of its SHA-512. What is not in it stays without, because
    nothing may be invented.
    """
    contact = _contact(creator)
    document = deepcopy(read_document(data))
    document.pop("vulnerabilities", None)
    document["metadata"]["manufacturer"] = contact
    origin = _origin(document["metadata"]["component"])
    for component in (document["metadata"]["component"], *document.get("components", ())):
        _add_fields(component, origin, sha512)
    return _written(document, Profile.BSI)


def _kept(component: Mapping[str, Any], root: Mapping[str, Any] | None = None) -> dict[str, Any]:
    kept = {key: component[key] for key in _KEPT if key in component}
    place = str(component.get("bom-ref", "")).rpartition("#")[2]
    occurrences = component.get("evidence", {}).get("occurrences", ())
    if root is not None and occurrences:
        # Inventories tell components apart by name and version, and many images share both.
        kept["name"] = f"{component['name']} in {occurrences[0]['location']} {place}"
        digest = str(component.get("version", "")).removeprefix("sha256:")
        name = str(component["name"]).replace(" ", "-")
        kept["purl"] = PackageURL("generic", name=name, version=digest[:64] or None).to_string()
    return kept


def _contact(creator: str) -> dict[str, Any]:
    if _EMAIL.fullmatch(creator):
        return {"contact": [{"email": creator}]}
    if _WEB.fullmatch(creator):
        return {"url": [creator]}
    raise InvalidInput(
        f"not an e-mail or web address: {creator!r}",
        hint="BSI TR-03183-2 wants to know who made the document: --creator sbom@example.org",
    )


def _origin(root: Mapping[str, Any]) -> dict[str, Any] | None:
    for wanted in ("website", "vcs", "distribution"):
        for reference in root.get("externalReferences", ()):
            if reference["type"] == wanted:
                return {"url": [reference["url"]]}
    return None


def _add_fields(
    component: dict[str, Any], origin: dict[str, Any] | None, sha512: Mapping[str, str]
) -> None:
    if origin is not None:
        component.setdefault("manufacturer", origin)
    for choice in component.get("licenses", ()):
        # What the publisher says of its own work is the licence that it is distributed under.
        choice.get("license", choice)["acknowledgement"] = "concluded"
    kind = _kind(component)
    if kind is None:
        return
    name = str(component["name"]).rpartition("/")[2]
    said = {
        "filename": name,
        "executable": "executable" if kind in _EXECUTABLE else "non-executable",
        "archive": "archive" if kind in _ARCHIVES else "no archive",
        "structured": "structured" if kind in _STRUCTURED else "unstructured",
    }
    component.setdefault("properties", []).extend(
        {"name": f"bsi:component:{key}", "value": value} for key, value in said.items()
    )
    for digest in _digests(component):
        if (found := sha512.get(f"sha256:{digest}")) is not None:
            component.setdefault("externalReferences", []).append(
                {
                    "type": "distribution",
                    "url": f"file:{name}",
                    "hashes": [{"alg": "SHA-512", "content": found}],
                }
            )


def _kind(component: Mapping[str, Any]) -> str | None:
    for item in component.get("properties", ()):
        if item["name"] in {"kgate:file:kind", "kgate:device:kind"}:
            return str(item["value"])
    return None


def _digests(component: Mapping[str, Any]) -> Iterator[str]:
    for item in component.get("hashes", ()):
        if item["alg"] == "SHA-256":
            yield str(item["content"])


def _written(document: dict[str, Any], profile: Profile) -> bytes:
    # Another document about the same thing: it needs a serial number of its own.
    serial = uuid5(NAMESPACE_URL, f"{document['serialNumber']} {profile}")
    document["serialNumber"] = f"urn:uuid:{serial}"
    text = json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False)
    return text.encode("utf-8") + b"\n"
