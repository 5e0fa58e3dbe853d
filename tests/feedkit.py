"""Advisories, VEX and scan reports as small as they can be, in the shapes that publishers use."""

from __future__ import annotations

import json
import zipfile
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from kgate_core.digest import Digest
from kgate_core.evidence import ScanReport
from kgate_core.kernel import KernelId, KernelRef, RepoType, Revision
from kgate_scanner.advisories.documents import read_document
from kgate_scanner.advisories.inventory import take_inventory
from kgate_scanner.advisories.matching import Feed, match

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from kgate_core.vulnerabilities import VulnerabilityReport

COMMIT = "c" * 40
OTHER = "d" * 40
VARIANT = "torch213-cxx11-cu130-x86_64-linux"
REPO = "kernels-community/relu"
WHEN = "2026-10-01T00:00:00Z"
KERNEL = KernelId(
    "https://huggingface.co", RepoType.KERNEL, KernelRef.parse(REPO), Revision(COMMIT), VARIANT
)
MANIFEST = Digest.of(b"manifest")
LIBRARY = Digest.of(b"library")
IMAGE = Digest.of(b"image")
BUILD_ID = "ab" * 20
TOOL_TEXT = (
    "NVIDIA CUDA Toolkit for all platforms contains a vulnerability in the nvdisasm binary, where"
    " a user may cause an out-of-bounds read by passing a malformed ELF file to nvdisasm."
)
LIBRARY_TEXT = "NVIDIA nvJPEG library contains a vulnerability in the handling of JPEG files."
VEX_AUTHOR = "security@example.com"


def report(
    *, toolkit: str = "12.8", needed: Iterable[str] = (), ships: Iterable[str] = ()
) -> ScanReport:
    """Return a scan report over one library with one device image, and over shipped libraries."""
    files: dict[str, dict[str, Any]] = {
        "_relu.so": {
            "kind": "elf-shared-object",
            "digest": str(LIBRARY),
            "host": {"buildId": BUILD_ID, "needed": list(needed)},
            "device": {"images": [{"kind": "cubin", "digest": str(IMAGE), "toolkit": toolkit}]},
        }
    }
    for name in ships:
        files[name] = {"kind": "elf-shared-object", "digest": str(Digest.of(name.encode()))}
        files[name]["host"] = {"soname": "", "needed": []}
    return ScanReport("kgate-scanner/test", MANIFEST, files, {}, ())


def osv(name: str = "KGATE-2026-0001", **more: Any) -> dict[str, Any]:
    """Return an OSV record."""
    return {"schema_version": "1.7.0", "id": name, "modified": WHEN, "affected": [], **more}


def own(repo: str = REPO, **parts: Any) -> dict[str, Any]:
    """Return an `affected` entry with kgate's own part."""
    package = {"ecosystem": "kgate", "name": repo}
    return {"package": package, "ecosystem_specific": {"kgate": parts}}


def csaf(
    text: str = TOOL_TEXT,
    version: str = "All versions prior to CUDA Toolkit 13.0",
    *,
    product: str = "NVIDIA CUDA Toolkit",
    cve: str = "CVE-2026-0001",
    modified: str = WHEN,
    score: float = 7.8,
) -> dict[str, Any]:
    """Return a CSAF document in the shape of NVIDIA's: the range is a sentence."""
    leaf = {
        "category": "product_version",
        "name": product,
        "product": {"name": version, "product_id": "p1"},
    }
    vendor = {"category": "vendor", "name": "NVIDIA", "branches": [leaf]}
    return {
        "document": {
            "csaf_version": "2.0",
            "category": "csaf_security_advisory",
            "title": "Security Bulletin",
            "tracking": {"id": "9001", "current_release_date": modified},
        },
        "product_tree": {"branches": [vendor]},
        "vulnerabilities": [
            {
                "cve": cve,
                "notes": [{"category": "summary", "text": text}],
                "product_status": {"known_affected": ["p1"]},
                "scores": [{"cvss_v3": {"baseScore": score}, "products": ["p1"]}],
            }
        ],
    }


def openvex(
    name: str = "KGATE-2026-0001",
    product: str = f"pkg:huggingface/{REPO}",
    *,
    author: str = VEX_AUTHOR,
    status: str = "not_affected",
    justification: str = "vulnerable_code_not_in_execute_path",
    when: str = WHEN,
) -> dict[str, Any]:
    """Return an OpenVEX document with one statement."""
    return {
        "@context": "https://openvex.dev/ns/v0.2.0",
        "@id": "https://example.com/vex/1",
        "author": author,
        "timestamp": when,
        "version": 1,
        "statements": [
            {
                "vulnerability": {"name": name},
                "products": [{"@id": product}],
                "status": status,
                "justification": justification,
            }
        ],
    }


def feed_of(*documents: Mapping[str, Any]) -> Feed:
    """Return a feed over documents, without a site."""
    contents = [read_document(json.dumps(one).encode(), what="test") for one in documents]
    return Feed(
        Digest.of(b"feed"),
        datetime(2026, 10, 1, tzinfo=UTC),
        tuple(("test", one) for content in contents for one in content.advisories),
        tuple(one for content in contents for one in content.statements),
    )


def matched(
    *documents: Mapping[str, Any], scan: ScanReport | None = None, authors: Iterable[str] = ()
) -> VulnerabilityReport:
    """Return what documents say about the variant of `report`."""
    inventory = take_inventory(report() if scan is None else scan, KERNEL)
    return match(feed_of(*documents), inventory, MANIFEST, authors)


def write_folder(folder: Path, documents: Mapping[str, Mapping[str, Any]]) -> Path:
    """Write documents as a folder of JSON files."""
    for name, document in documents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document), encoding="utf-8")
    return folder


def write_zip(path: Path, documents: Mapping[str, Mapping[str, Any]]) -> Path:
    """Write documents as a zip archive."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, document in documents.items():
            archive.writestr(name, json.dumps(document))
    return path
