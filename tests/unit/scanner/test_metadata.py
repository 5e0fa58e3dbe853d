from __future__ import annotations

import base64
import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from kernels._rust import Digest, DigestAlgorithm, Metadata

from kgate_core.kernel import Variant
from kgate_scanner.metadata import check_metadata, read_metadata
from tests.scankit import CPU, manifest_of

if TYPE_CHECKING:
    from pathlib import Path

GOOD: dict[str, Any] = {
    "name": "relu",
    "id": "_relu_4f3a2b1c",
    "version": 1,
    "license": "apache-2.0",
    "python-depends": ["einops"],
    "backend": {"type": "cpu"},
    "provenance": {
        "kernel-builder": {"version": "0.17.2", "commit": "a" * 40, "dirty": False},
        "kernel": {"commit": "b" * 40, "dirty": False},
    },
}


def read(**changes: Any) -> list[str]:
    document = {**GOOD, **{key.replace("_", "-"): value for key, value in changes.items()}}
    document = {key: value for key, value in document.items() if value is not None}
    found = read_metadata(memoryview(json.dumps(document).encode()), "metadata.json")
    return [finding.rule for finding in found.findings]


def digests(files: dict[str, bytes], algorithm: str = "sha256") -> dict[str, Any]:
    listed = {
        path: base64.b64encode(hashlib.new(algorithm, data).digest()).decode()
        for path, data in files.items()
    }
    return {"algorithm": algorithm, "files": listed}


FILES = {"__init__.py": b"import torch\n", "lib/a.so": b"\x7fELF"}


def check(
    document: dict[str, Any],
    files: dict[str, bytes],
    archs: dict[str, set[str]] | None = None,
    variant: str = CPU,
) -> list[tuple[str, str]]:
    manifest = manifest_of({"metadata.json": b"{}", **files})
    found = check_metadata(document, manifest, Variant.parse(variant), archs or {})
    return [(finding.rule, finding.path) for finding in found]


def test_a_builders_document_is_read_whole_and_nothing_is_said_against_it() -> None:
    found = read_metadata(memoryview(json.dumps(GOOD).encode()), "metadata.json")
    assert (found.facts, found.findings) == (GOOD, ())


@pytest.mark.parametrize(
    "identity", ["json", "os.path", "torch", "kgate_client", "sitecustomize", "numpy"]
)
def test_an_id_that_replaces_a_module_is_critical(identity: str) -> None:
    assert read(id=identity) == ["KG-META-003"]


@pytest.mark.parametrize(
    "identity", ["relu", "_relu", "_relu_", "_relu_4f3a.b", "../x", "", "_Relu_4f3a2b1c", None]
)
def test_an_id_that_no_builder_writes_is_found(identity: str | None) -> None:
    assert read(id=identity) == ["KG-META-004"]


def test_provenance_licence_dependencies_and_unknown_fields_are_told() -> None:
    dirty = {"kernel": {"commit": "b" * 40, "dirty": True}, "kernel-builder": {"dirty": True}}
    assert read(provenance=dirty) == ["KG-META-005", "KG-META-005"]
    assert read(provenance=None) == ["KG-META-006"]
    assert read(kernel_depends=[{"repo-id": "a/b", "version": 1}]) == ["KG-META-007"]
    assert read(license=None) == ["KG-META-013"]
    assert read(surprise=1) == ["KG-META-014"]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{",
        b'{"name": "a", "name": "b", "backend": {"type": "cpu"}}',
        b'{"name": "a"}',
        b'{"name": "a", "backend": "cpu"}',
        b'{"name": "a", "backend": {"type": 1}}',
        b'{"name": "a", "backend": {"type": "cpu", "archs": [1]}}',
        b'{"name": "a", "backend": {"type": "cpu"}, "kernel-depends": ["a/b"]}',
        b'{"name": "a", "backend": {"type": "cpu"}, "kernel-depends": "a/b"}',
        b'{"name": "a", "backend": {"type": "cpu"}, "provenance": {"kernel": 1}}',
        b'{"name": "a", "backend": {"type": "cpu"}, "digest": {"algorithm": "x"}}',
        b'{"name": "a", "backend": {"type": "cpu"}, "digest": {"algorithm":"x","files":{"a":1}}}',
        b"[" * 100_000,
        b" " * (5 << 20),
    ],
)
def test_a_malformed_document_is_one_finding_and_no_facts(data: bytes) -> None:
    found = read_metadata(memoryview(data), "metadata.json")
    assert found.facts == {}
    assert [finding.rule for finding in found.findings] == ["KG-META-002"]


def test_digests_are_compared_as_upstream_writes_them(tmp_path: Path) -> None:
    # Upstream's own code makes the digest, over everything that it skips as well.
    skipped = {"__pycache__/a.pyc": b"1", "b.pyc": b"2", "metadata.json.sigstore": b"{}"}
    for path, data in {**FILES, **skipped}.items():
        (tmp_path / path).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / path).write_bytes(data)
    upstream = Digest.hash_variant(DigestAlgorithm.SHA256, tmp_path)
    document = {**GOOD, "digest": {"algorithm": "sha256", "files": upstream.files}}
    assert Metadata.from_bytes(json.dumps(document).encode()).digest is not None
    assert check(document, {**FILES, **skipped}) == []


def test_a_file_too_many_too_few_or_changed_is_found() -> None:
    document = {**GOOD, "digest": digests(FILES)}
    assert check(document, {**FILES, "extra.py": b""}) == [("KG-META-009", "extra.py")]
    assert check(document, {"lib/a.so": b"\x7fELF"}) == [("KG-META-009", "metadata.json")]
    assert check(document, {**FILES, "lib/a.so": b"other"}) == [("KG-META-010", "lib/a.so")]


def test_digests_that_cannot_be_compared_are_said_to_be_malformed() -> None:
    bad = {"algorithm": "sha256", "files": {"__init__.py": "?", "lib/a.so": "AAAA"}}
    assert check({**GOOD, "digest": bad}, FILES) == [("KG-META-002", "metadata.json")] * 2
    old = {"algorithm": "md5", "files": {}}
    assert check({**GOOD, "digest": old}, FILES) == [("KG-META-002", "metadata.json")]
    assert check({**GOOD, "digest": digests(FILES, "sha512")}, FILES) == []


def test_missing_metadata_and_missing_digests_are_told() -> None:
    manifest = manifest_of(FILES)
    (finding,) = check_metadata({}, manifest, Variant.parse(CPU), {})
    assert finding.rule == "KG-META-001"
    assert check(GOOD, FILES) == [("KG-META-008", "metadata.json")]


CUDA = "torch213-cxx11-cu130-x86_64-linux"


@pytest.mark.parametrize(
    ("backend", "variant", "archs", "expected"),
    [
        ({"type": "cuda"}, CUDA, {}, []),
        ({"type": "cpu"}, CUDA, {}, ["KG-META-011"]),
        ({"type": "cuda"}, "torch-universal", {}, []),
        ({"type": "cuda"}, CUDA, {"rocm": {"gfx90a"}}, ["KG-META-011"]),
        ({"type": "cuda", "archs": ["9.0a+PTX"]}, CUDA, {"cuda": {"sm_90a", "compute_90a"}}, []),
        ({"type": "cuda", "archs": ["9.0", "10.0"]}, CUDA, {"cuda": {"sm_90"}}, ["KG-META-012"]),
        ({"type": "cuda", "archs": ["9.0"]}, CUDA, {"cuda": {"sm_90", "sm_80"}}, ["KG-META-012"]),
        (
            {"type": "rocm", "archs": ["gfx90a"]},
            "torch213-cxx11-rocm71-x86_64-linux",
            {"rocm": {"gfx90a:xnack+"}},
            [],
        ),
    ],
)
def test_backend_and_architectures_fit_the_variant_and_its_device_code(
    backend: dict[str, Any], variant: str, archs: dict[str, set[str]], expected: list[str]
) -> None:
    document = {**GOOD, "backend": backend, "digest": digests(FILES)}
    assert [rule for rule, _ in check(document, FILES, archs, variant)] == expected
