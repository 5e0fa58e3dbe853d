"""Real binaries for fifteen GPU platforms: every device image is found and named in the SBOM."""

from __future__ import annotations

import json
import os
import struct
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import lief
import pytest
import zstandard
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from kgate_core.kernel import KernelId, KernelRef, RepoType, Revision
from kgate_mirror_server.examples import default_cache, fetch_bitsandbytes
from kgate_scanner.paths import Scanned, scan_path
from kgate_scanner.sbom import build_sbom

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

WHEN = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def repository() -> Path:
    return fetch_bitsandbytes(default_cache(os.environ))


@pytest.fixture(scope="module")
def scanned(repository: Path) -> dict[str, Scanned]:
    return {item.variant: item for item in scan_path(repository) if item.variant}


def expected_images(library: Path) -> list[int] | None:
    """Count the images of each container by hand; None for the formats not counted here."""
    parsed = lief.ELF.parse(str(library))
    assert parsed is not None
    counts: list[int] = []
    for section in parsed.sections:
        content = bytes(section.content)
        name = str(section.name)
        if name in {".nv_fatbin", "__nv_relfatbin"}:
            counts += fatbin_entries(content)
        elif name == ".hip_fatbin":
            counts += bundle_members(content)
        elif name.startswith("__CLANG_OFFLOAD_BUNDLE__"):
            return None
    return counts


def fatbin_entries(content: bytes) -> list[int]:
    counts, at = [], 0
    while (at := content.find(b"\x50\xed\x55\xba", at)) >= 0:
        (size,) = struct.unpack_from("<Q", content, at + 8)
        entry, end, count = at + 16, at + 16 + size, 0
        while entry < end:
            header, stored = struct.unpack_from("<IQ", content, entry + 4)
            entry += header + stored
            count += 1
        counts.append(count)
        at = end
    return counts


def bundle_members(content: bytes) -> list[int]:
    counts, at = [], 0
    while (at := content.find(b"CCOB", at)) >= 0:
        head = {2: 24, 3: 32}[content[at + 4]]
        bundle = zstandard.ZstdDecompressor().decompressobj().decompress(content[at + head :])
        counts.append(struct.unpack_from("<Q", bundle, 24)[0] - 1)  # one member is the host's
        at += head
    return counts


def test_all_fifteen_libraries_are_read_to_their_end(scanned: dict[str, Scanned]) -> None:
    assert len(scanned) == 15
    for variant, item in scanned.items():
        assert item.report.complete, variant
        assert item.report.summary["host"]["libraries"] == 1
        assert item.report.summary["device"]["images"] > 0
        assert item.report.summary["device"]["kernels"] > 0


def test_as_many_images_are_found_as_the_containers_hold(
    repository: Path, scanned: dict[str, Scanned]
) -> None:
    compared = 0
    for variant, item in scanned.items():
        (library,) = (repository / "build" / variant).glob("*.so")
        expected = expected_images(library)
        if expected is not None:
            found: dict[int, int] = {}
            for image in item.report.files[library.name]["device"]["images"]:
                found[image["container"]] = found.get(image["container"], 0) + 1
            assert [found[number] for number in sorted(found)] == expected, variant
            compared += 1
    assert compared == 13


def test_the_sbom_names_every_device_image_with_its_place(scanned: dict[str, Scanned]) -> None:
    named = 0
    for variant, item in scanned.items():
        kernel = KernelId(
            "https://huggingface.co",
            RepoType.KERNEL,
            KernelRef.parse("bitsandbytes-foundation/bitsandbytes"),
            Revision("1" * 40),
            variant,
        )
        data = build_sbom(kernel, item.manifest, item.metadata, item.report, timestamp=WHEN)
        again = build_sbom(kernel, item.manifest, item.metadata, item.report, timestamp=WHEN)
        assert data == again
        assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(data.decode()) is None
        images = {
            (path, image["offset"], image["digest"].removeprefix("sha256:"))
            for path, facts in item.report.files.items()
            for image in facts.get("device", {}).get("images", ())
        }
        components: list[dict[str, Any]] = json.loads(data)["components"]
        listed = {
            (place["location"], place["offset"], component["hashes"][0]["content"])
            for component in components
            for place in component.get("evidence", {}).get("occurrences", ())
        }
        assert listed == images
        named += len(images)
    assert named > 500


def test_what_is_wrong_with_these_libraries_is_known(scanned: dict[str, Scanned]) -> None:
    rules = {finding.rule for item in scanned.values() for finding in item.report.findings}
    assert "KG-HOST-002" in rules  # RUNPATH names the CUDA and ROCm of the build machine
    assert not {rule for rule in rules if rule.startswith(("KG-SCAN", "KG-ELF", "KG-FILE"))}
    assert not rules & {"KG-META-003", "KG-META-009", "KG-META-010", "KG-META-011"}
