from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from kgate_core.digest import Digest
from kgate_core.errors import InvalidInput
from kgate_core.statement import subjects_of
from kgate_signer.predicates import (
    IMPORT_TYPE,
    QUALIFICATION_SCHEMA,
    QUALIFICATION_TYPE,
    SBOM_TYPE,
    ImportRecord,
    OidKind,
    UpstreamOid,
    UpstreamSignature,
    UpstreamVerdict,
    import_statement,
    qualification_statement,
    sbom_statement,
    vsa_statement,
)
from tests.trustkit import KERNEL, NOW, make_trust, manifest_of

if TYPE_CHECKING:
    from kgate_core.statement import Statement

MANIFEST = manifest_of()
SBOM = b'{"bomFormat": "CycloneDX", "specVersion": "1.6", "components": []}'
RECORD = ImportRecord(
    origin=KERNEL.origin,
    repo_type=KERNEL.repo_type,
    repo=KERNEL.repo,
    upstream_revision=KERNEL.revision,
    pin="v1",
    variant=KERNEL.variant,
    oids={
        "__init__.py": UpstreamOid(OidKind.GIT_SHA1, "1" * 40),
        "layers/__init__.py": UpstreamOid(OidKind.NONE),
        "metadata.json": UpstreamOid(
            OidKind.LFS_SHA256, MANIFEST.by_path["metadata.json"].digest.hex
        ),
    },
    fetched_at=NOW,
    signature=UpstreamSignature(
        UpstreamVerdict.VERIFIED,
        "signed by the expected workflow",
        "https://github.test/acme/.github/workflows/build.yaml@refs/heads/main",
        "https://token.test",
        Digest.of(b"bundle"),
    ),
)


def test_how_a_variant_came_is_said_completely() -> None:
    statement = import_statement(MANIFEST, RECORD)
    assert statement.predicate_type == IMPORT_TYPE
    assert statement.subjects == subjects_of(MANIFEST)
    assert statement.predicate == {
        "origin": "https://hub.test",
        "repoType": "kernel",
        "repo": "acme/relu",
        "upstreamRevision": "a" * 40,
        "pin": "v1",
        "variant": "torch-cpu",
        "files": {
            "__init__.py": {"kind": "git-sha1", "oid": "1" * 40},
            "layers/__init__.py": {"kind": "none"},
            "metadata.json": {
                "kind": "lfs-sha256",
                "oid": MANIFEST.by_path["metadata.json"].digest.hex,
            },
        },
        "fetchedAt": "2026-11-21T12:00:00Z",
        "upstreamSignature": {
            "verdict": "verified",
            "detail": "signed by the expected workflow",
            "identity": "https://github.test/acme/.github/workflows/build.yaml@refs/heads/main",
            "issuer": "https://token.test",
            "bundle": str(Digest.of(b"bundle")),
        },
    }


def test_a_missing_upstream_signature_is_said_without_empty_fields() -> None:
    record = replace(RECORD, signature=UpstreamSignature(UpstreamVerdict.MISSING))
    predicate = import_statement(MANIFEST, record).predicate
    assert predicate["upstreamSignature"] == {"verdict": "missing"}


def test_every_file_is_accounted_for_and_none_beyond() -> None:
    fewer = {path: oid for path, oid in RECORD.oids.items() if path != "metadata.json"}
    more = {**RECORD.oids, "x.py": UpstreamOid(OidKind.NONE)}
    for oids, name in ((fewer, "metadata.json"), (more, "x.py")):
        with pytest.raises(InvalidInput, match=f"disagree about the file '{name}'"):
            import_statement(MANIFEST, replace(RECORD, oids=oids))


def test_an_upstream_sha256_must_be_that_of_the_stored_bytes() -> None:
    oids = {**RECORD.oids, "__init__.py": UpstreamOid(OidKind.LFS_SHA256, "0" * 64)}
    with pytest.raises(InvalidInput, match=r"__init__\.py: the upstream said sha256 0000"):
        import_statement(MANIFEST, replace(RECORD, oids=oids))


def test_a_bill_of_materials_is_the_predicate_itself() -> None:
    statement = sbom_statement(MANIFEST, SBOM)
    assert statement.predicate_type == SBOM_TYPE
    assert statement.predicate == json.loads(SBOM)


@pytest.mark.parametrize("bom", [b"{}", b'{"bomFormat":"SPDX"}', b"x", b"[]"])
def test_what_is_no_cyclonedx_document_is_refused(bom: bytes) -> None:
    with pytest.raises(InvalidInput, match="SBOM: "):
        sbom_statement(MANIFEST, bom)


def test_a_decision_stands_only_beside_its_own_manifest() -> None:
    vsa = make_trust().vsa(MANIFEST)
    statement: Statement = vsa_statement(MANIFEST, vsa)
    assert statement.subjects == subjects_of(MANIFEST)
    with pytest.raises(InvalidInput, match="the decision is about"):
        vsa_statement(manifest_of({"a": b""}), replace(vsa, valid_until=NOW + timedelta(days=1)))


QUALIFIED: dict[str, object] = {
    "schema": QUALIFICATION_SCHEMA,
    "manifest": str(MANIFEST.digest),
    "submitter": {"name": "bench-7 of acme", "key": "4f2c"},
    "finishedAt": "2026-11-21T12:00:00Z",
    "passed": True,
    "checks": [{"name": "equal to PyTorch", "passed": True, "nanoseconds": 41_000}],
}


def test_a_qualification_result_is_kept_whole_with_its_submitter() -> None:
    statement = qualification_statement(MANIFEST, json.dumps(QUALIFIED).encode())
    assert statement.predicate_type == QUALIFICATION_TYPE
    assert statement.subjects == subjects_of(MANIFEST)
    assert statement.predicate == QUALIFIED


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"schema": "kgate.dev/scan/v1"}, "the schema is 'kgate.dev/scan/v1'"),
        ({"manifest": str(Digest.of(b"other"))}, "it is about sha256:"),
        ({"submitter": {"name": " "}}, "nobody is named as its submitter"),
        ({"submitter": "me"}, "'submitter' should be dict"),
        ({"finishedAt": "today"}, "finishedAt|time"),
        ({"passed": "yes"}, "'passed' should be bool"),
        ({"speedup": 1.5}, "float|number"),
    ],
)
def test_a_qualification_result_that_says_too_little_or_is_about_other_bytes_is_refused(
    changes: dict[str, object], complaint: str
) -> None:
    with pytest.raises(InvalidInput, match=complaint):
        qualification_statement(MANIFEST, json.dumps(QUALIFIED | changes).encode())
