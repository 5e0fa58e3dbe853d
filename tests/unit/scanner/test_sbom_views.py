"""The flat view, BSI's view and SPDX: valid for other people's readers, and nothing is lost."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from spdx_tools.spdx.parser.parse_anything import parse_file
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

from kgate_core.errors import InvalidInput
from kgate_scanner.sbom import build_sbom
from kgate_scanner.sbom_profiles import as_bsi, as_inventory
from kgate_scanner.sbom_subject import SbomSubject
from kgate_scanner.spdx import write_spdx
from tests.unit.scanner.test_sbom import KERNEL, MANIFEST, METADATA, REPORT, WHEN

if TYPE_CHECKING:
    from pathlib import Path

FULL = build_sbom(KERNEL, MANIFEST, METADATA, REPORT, timestamp=WHEN)
SO = str(MANIFEST.by_path["_relu.so"].digest)


def by_name(data: bytes, name: str) -> dict[str, Any]:
    (found,) = [item for item in json.loads(data)["components"] if item["name"] == name]
    return dict(found)


def said(component: dict[str, Any]) -> dict[str, str]:
    return {item["name"]: item["value"] for item in component.get("properties", ())}


@pytest.mark.parametrize(
    "data",
    [as_inventory(FULL), as_bsi(FULL, creator="sbom@example.org", sha512={SO: "ab" * 64})],
    ids=["inventory", "bsi"],
)
def test_views_are_strictly_valid_and_have_serial_numbers_of_their_own(data: bytes) -> None:
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(data.decode()) is None
    assert json.loads(data)["serialNumber"] != json.loads(FULL)["serialNumber"]
    assert len(json.loads(data)["components"]) == len(json.loads(FULL)["components"])


def test_the_flat_view_tells_every_component_apart_and_gives_it_a_package_url() -> None:
    document = json.loads(as_inventory(FULL))
    names = [(item["name"], item.get("version")) for item in document["components"]]
    assert len(set(names)) == len(names)
    images = [item for item in document["components"] if " in _relu.so " in item["name"]]
    assert [item["name"] for item in images] == [
        "sm_90 cubin in _relu.so 0.0",
        "sm_90 ptx in _relu.so 0.1",
    ]
    assert all(item["purl"].startswith("pkg:generic/sm_90-") for item in images)
    assert not [item for item in document["components"] if "evidence" in item]
    assert document["dependencies"] == json.loads(FULL)["dependencies"]


def test_bsi_gets_creators_file_names_kinds_and_the_long_digest() -> None:
    data = as_bsi(FULL, creator="sbom@example.org", sha512={SO: "ab" * 64})
    document = json.loads(data)
    assert document["metadata"]["manufacturer"] == {"contact": [{"email": "sbom@example.org"}]}
    library = by_name(data, "_relu.so")
    assert {key: value for key, value in said(library).items() if key.startswith("bsi:")} == {
        "bsi:component:filename": "_relu.so",
        "bsi:component:executable": "executable",
        "bsi:component:archive": "no archive",
        "bsi:component:structured": "unstructured",
    }
    (reference,) = library["externalReferences"]
    assert reference["hashes"] == [{"alg": "SHA-512", "content": "ab" * 64}]
    assert library["manufacturer"]["url"] == [METADATA["source"]]
    assert "externalReferences" not in by_name(data, "__init__.py")
    root = document["metadata"]["component"]
    assert root["licenses"][0]["license"]["acknowledgement"] == "concluded"


@pytest.mark.parametrize("creator", ["", "somebody", "ftp://example.org", "a@b"])
def test_bsi_wants_an_address_of_the_creator(creator: str) -> None:
    with pytest.raises(InvalidInput, match="not an e-mail or web address"):
        as_bsi(FULL, creator=creator, sha512={})


def test_spdx_is_valid_for_its_own_library_and_keeps_every_component(tmp_path: Path) -> None:
    path = tmp_path / "relu.spdx.json"
    path.write_bytes(write_spdx(FULL))
    document = parse_file(str(path))
    assert validate_full_spdx_document(document) == []
    assert len(document.packages) == 1 + len(json.loads(FULL)["components"])
    sums = {package.name: package.checksums for package in document.packages}
    assert sums["_relu.so"][0].value == SO.removeprefix("sha256:")


def test_spdx_says_what_holds_what_and_what_needs_what() -> None:
    document = json.loads(write_spdx(FULL))
    names = {item["SPDXID"]: item["name"] for item in document["packages"]}
    edges = {
        (names[item["spdxElementId"]], item["relationshipType"], names[item["relatedSpdxElement"]])
        for item in document["relationships"]
        if item["spdxElementId"] in names
    }
    assert ("relu", "CONTAINS", KERNEL.variant) in edges
    assert (KERNEL.variant, "CONTAINS", "_relu.so") in edges
    assert ("_relu.so", "CONTAINS", "sm_90 cubin") in edges
    assert ("_relu.so", "DEPENDS_ON", "libtorch.so") in edges
    assert ("_relu.so", "DEPENDS_ON", "lib/helper.so") in edges
    (root,) = [item for item in document["packages"] if item["name"] == "relu"]
    assert root["licenseDeclared"] == "Apache-2.0"
    (cubin,) = [item for item in document["packages"] if item["name"] == "sm_90 cubin"]
    assert "at _relu.so+4096 in .nv_fatbin" in cubin["comment"]


def test_a_licence_that_spdx_does_not_know_is_a_remark_not_an_identifier() -> None:
    metadata = {**METADATA, "license": "Ours, ask us"}
    data = build_sbom(KERNEL, MANIFEST, metadata, REPORT, timestamp=WHEN)
    (root,) = [item for item in json.loads(write_spdx(data))["packages"] if item["name"] == "relu"]
    assert root["licenseDeclared"] == "NOASSERTION"
    assert "Ours, ask us" in root["comment"]


@pytest.mark.parametrize("write", [write_spdx, as_inventory])
def test_equal_input_gives_equal_bytes_and_other_documents_are_refused(write: Any) -> None:
    assert write(FULL) == write(FULL)
    with pytest.raises(InvalidInput):
        write(b'{"bomFormat": "other"}')


def test_a_path_is_named_as_it_was_called_and_a_wheel_by_its_package() -> None:
    plain = SbomSubject.of_path("libkernel.so", MANIFEST)
    assert (plain.name, plain.version, plain.purl) == ("libkernel.so", str(MANIFEST.digest), None)
    wheel = SbomSubject.of_path("flash_attn-2.8.3-cp311-cp311-linux_x86_64.whl", MANIFEST)
    assert str(wheel.purl) == "pkg:pypi/flash-attn@2.8.3"
    data = build_sbom(wheel, MANIFEST, {}, REPORT, timestamp=WHEN)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(data.decode()) is None
    library = by_name(data, "_relu.so")
    assert library["purl"] == "pkg:pypi/flash-attn@2.8.3#_relu.so"
    references = [item["bom-ref"] for item in json.loads(data)["components"]]
    assert len(set(references)) == len(references)
