from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from kgate_core.digest import Digest
from kgate_core.errors import InvalidInput
from kgate_core.evidence import ScanReport
from kgate_core.kernel import KernelId, KernelRef, RepoType, Revision
from kgate_scanner.sbom import Spec, build_sbom, kernel_table
from kgate_scanner.scan import scanner_name
from tests.scankit import CPU, manifest_of

WHEN = datetime(2026, 3, 1, 12, tzinfo=UTC)
KERNEL = KernelId(
    "https://huggingface.co",
    RepoType.KERNEL,
    KernelRef.parse("kernels-community/relu"),
    Revision("c" * 40),
    CPU,
)
FILES = {"__init__.py": b"", "_relu.so": b"\x7fELF", "lib/helper.so": b"\x7fELF2", "ä b.txt": b"x"}
MANIFEST = manifest_of(FILES)
METADATA: dict[str, Any] = {
    "name": "relu",
    "id": "_relu_4f3a2b1c",
    "version": 1,
    "license": "apache-2.0",
    "python-depends": ["einops"],
    "kernel-depends": [{"repo-id": "kernels-community/other", "version": 1}],
    "source": "https://github.com/huggingface/kernels-community",
    "backend": {"type": "cuda", "archs": ["9.0"]},
    "provenance": {"kernel": {"commit": "d" * 40, "dirty": False}},
}


def image(entry: int, kind: str = "cubin", **more: Any) -> dict[str, Any]:
    return {
        "kind": kind,
        "target": "sm_90",
        "containerFormat": "fatbin",
        "section": ".nv_fatbin",
        "container": 0,
        "entry": entry,
        "offset": 4096 + entry,
        "storedSize": 100,
        "size": 200,
        "compression": "zstd",
        "digest": str(Digest.of(str(entry).encode())),
        "tools": [{"name": "ptxas", "version": "13.0"}],
        "kernelCount": 2,
        "kernels": [{"name": "relu", "registers": 32}, {"name": "gelu"}],
        **more,
    }


REPORT = ScanReport(
    scanner=scanner_name(),
    subject=MANIFEST.digest,
    files={
        "__init__.py": {"kind": "python"},
        "_relu.so": {
            "kind": "elf-shared-object",
            "host": {
                "machine": "x86_64",
                "soname": "_relu.so",
                "needed": ["libcudart.so.12", "libc.so.6", "libhelper.so.1", "libtorch.so"],
                "buildId": "ab" * 20,
            },
            "device": {"images": [image(0), image(1, "ptx", digest="")]},
        },
        "lib/helper.so": {
            "kind": "elf-shared-object",
            "host": {"soname": "libhelper.so.1", "needed": ["_relu.so"]},
        },
        "ä b.txt": {"kind": "text"},
    },
    summary={"device": {"kernels": 4}},
    findings=(),
)


def document(**changes: Any) -> dict[str, Any]:
    metadata = {**METADATA, **changes}
    data = build_sbom(KERNEL, MANIFEST, metadata, REPORT, timestamp=WHEN)
    return dict(json.loads(data))


def parts(bom: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {component["name"]: component for component in bom["components"]}


def properties(component: dict[str, Any]) -> dict[str, str]:
    return {item["name"]: item["value"] for item in component["properties"]}


@pytest.mark.parametrize("spec", Spec)
def test_the_document_is_valid_strictly(spec: Spec) -> None:
    data = build_sbom(KERNEL, MANIFEST, METADATA, REPORT, timestamp=WHEN, spec=spec)
    version = {Spec.V1_6: SchemaVersion.V1_6, Spec.V1_7: SchemaVersion.V1_7}[spec]
    assert JsonStrictValidator(version).validate_str(data.decode()) is None
    assert json.loads(data)["specVersion"] == str(spec)


def test_equal_input_gives_equal_bytes_and_other_input_another_serial_number() -> None:
    first = build_sbom(KERNEL, MANIFEST, METADATA, REPORT, timestamp=WHEN)
    assert first == build_sbom(KERNEL, MANIFEST, METADATA, REPORT, timestamp=WHEN)
    bom = json.loads(first)
    assert bom["metadata"]["timestamp"] == "2026-03-01T12:00:00+00:00"
    other = replace(KERNEL, revision=Revision("e" * 40))
    serial = json.loads(build_sbom(other, MANIFEST, METADATA, REPORT, timestamp=WHEN))
    assert serial["serialNumber"] != bom["serialNumber"]


def test_the_graph_leads_from_the_repository_to_every_device_image() -> None:
    bom = document()
    edges = {item["ref"]: set(item.get("dependsOn", ())) for item in bom["dependencies"]}
    root = bom["metadata"]["component"]["bom-ref"]
    assert root == f"pkg:huggingface/kernels-community/relu@{'c' * 40}"
    reached, pending = set(), [root]
    while pending:
        reference = pending.pop()
        if reference not in reached:
            reached.add(reference)
            pending += edges[reference]
    assert reached == {root} | {component["bom-ref"] for component in bom["components"]}
    assert edges[root] == {KERNEL.purl}
    library = parts(bom)["_relu.so"]["bom-ref"]
    helper = parts(bom)["lib/helper.so"]["bom-ref"]
    assert {f"{library}#0.0", f"{library}#0.1", helper} <= edges[library]
    assert edges[helper] == {library}


def test_a_device_image_has_its_digest_its_place_and_its_facts() -> None:
    found = parts(document())["sm_90 cubin"]
    assert found["type"] == "file"
    assert found["hashes"] == [{"alg": "SHA-256", "content": Digest.of(b"0").hex}]
    assert found["evidence"]["occurrences"] == [
        {"location": "_relu.so", "offset": 4096, "additionalContext": ".nv_fatbin"}
    ]
    said = properties(found)
    assert said["kgate:device:target"] == "sm_90"
    assert said["kgate:device:tool"] == "ptxas 13.0"
    assert said["kgate:device:kernels"] == "2"
    names = hashlib.sha256(b"gelu\nrelu").hexdigest()
    assert said["kgate:device:kernels-digest"] == f"sha256:{names}"


def test_an_image_whose_bytes_could_not_be_had_has_no_digest() -> None:
    assert "hashes" not in parts(document())["sm_90 ptx"]


def test_needed_libraries_are_packages_where_their_project_is_known() -> None:
    found = parts(document())
    assert found["libcudart.so.12"]["purl"] == "pkg:pypi/nvidia-cuda-runtime-cu12"
    assert found["libtorch.so"]["purl"] == "pkg:pypi/torch"
    assert found["libc.so.6"]["purl"] == "pkg:generic/libc.so.6"
    assert "libhelper.so.1" not in found
    assert found["einops"]["purl"] == "pkg:pypi/einops"
    assert found["kernels-community/other"]["purl"] == "pkg:huggingface/kernels-community/other"


def test_licence_source_and_provenance_come_from_the_metadata() -> None:
    bom = document()
    variant = parts(bom)[CPU]
    for component in (variant, bom["metadata"]["component"]):
        assert component["licenses"] == [{"license": {"id": "Apache-2.0"}}]
        assert {"type": "vcs", "url": METADATA["source"]} in component["externalReferences"]
    assert variant["pedigree"]["commits"] == [{"uid": "d" * 40}]
    said = properties(variant)
    assert said["kgate:metadata:id"] == "_relu_4f3a2b1c"
    assert said["kgate:metadata:provenance:kernel:dirty"] == "false"
    assert said["kgate:manifest"] == str(MANIFEST.digest)


def test_every_file_has_its_digest_and_a_package_url_of_its_own() -> None:
    found = parts(document())
    for entry in MANIFEST.files:
        component = found[entry.path]
        assert component["hashes"] == [{"alg": "SHA-256", "content": entry.digest.hex}]
        assert component["type"] == ("library" if entry.path.endswith(".so") else "file")
        assert "#build/" in component["purl"]
    assert len({found[entry.path]["purl"] for entry in MANIFEST.files}) == len(FILES)


@pytest.mark.parametrize(
    "changes",
    [
        {"license": "Some licence of our own (see README)"},
        {"license": ""},
        {"source": "javascript:alert(1)"},
        {"source": "https://[broken"},
        {"upstream": "https://exa mple.org/"},
        {"python-depends": ["Weird Name/é?"]},
        {"kernel-depends": [{"repo-id": "no slash?#"}]},
        {"backend": {"type": "x" * 5000}, "provenance": {"kernel": {"sha": "1"}}},
    ],
)
def test_whatever_the_metadata_says_the_document_stays_valid(changes: dict[str, Any]) -> None:
    metadata = {**METADATA, **changes}
    data = build_sbom(KERNEL, MANIFEST, metadata, REPORT, timestamp=WHEN)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(data.decode()) is None


def test_a_report_about_other_files_is_refused() -> None:
    with pytest.raises(InvalidInput, match="about another manifest"):
        build_sbom(KERNEL, manifest_of({"a": b""}), METADATA, REPORT, timestamp=WHEN)


def test_the_table_of_kernels_stands_beside_the_document_by_its_digest() -> None:
    table = kernel_table(REPORT)
    rows = json.loads(table)["images"]
    assert [row["kernels"][0]["name"] for row in rows] == ["relu", "relu"]
    said = properties(parts(document())[CPU])
    assert said["kgate:device:kernel-table"] == f"sha256:{hashlib.sha256(table).hexdigest()}"
    assert said["kgate:device:images"] == "2"


def test_a_folder_of_kernels_needs_no_address() -> None:
    kernel = replace(KERNEL, origin="dir:built-here")
    bom = json.loads(build_sbom(kernel, MANIFEST, {}, REPORT, timestamp=WHEN))
    assert "externalReferences" not in bom["metadata"]["component"]
