from __future__ import annotations

import base64
import json
import socket
from typing import Any

import pytest

from kgate_core.digest import Digest
from kgate_core.errors import TrustError
from kgate_core.kernel import KernelRef
from kgate_signer import upstream
from kgate_signer.predicates import UpstreamVerdict
from kgate_signer.upstream import (
    HUGGING_FACE,
    METADATA,
    SIGNATURE,
    Publisher,
    UpstreamVerifier,
    shipped_root,
)
from tests.sigstorekit import ISSUER, REPOSITORY, WORKFLOW
from tests.upstreamkit import ACME, SIGSTORE, VERIFIER, Variant

GOOD = Variant().digested().signed()


def test_a_publishers_signature_is_verified_and_says_whose_it_is() -> None:
    found = GOOD.check()
    assert found.verdict is UpstreamVerdict.VERIFIED, found.detail
    assert (found.identity, found.issuer) == (WORKFLOW, ISSUER)
    assert found.bundle == Digest.of(GOOD.files[SIGNATURE])


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_both_of_upstreams_digest_algorithms_are_compared(algorithm: str) -> None:
    variant = Variant().digested(algorithm).signed()
    assert variant.check().verdict is UpstreamVerdict.VERIFIED
    variant.files["__init__.py"] = b"x = 2\n"
    found = variant.check()
    assert found.verdict is UpstreamVerdict.REJECTED
    assert found.detail == "__init__.py differs from the signed digest"


def test_nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    fresh = UpstreamVerifier((ACME,), SIGSTORE.trusted_root)
    assert GOOD.check(verifier=fresh).verdict is UpstreamVerdict.VERIFIED


def test_a_version_that_nobody_asked_for_is_not_compared() -> None:
    assert GOOD.check(version=None).verdict is UpstreamVerdict.VERIFIED


def test_underscores_and_dashes_in_names_are_one() -> None:
    variant = Variant().digested(name="flash_attn").signed()
    repo = KernelRef("acme", "flash-attn")
    assert variant.check(repo).verdict is UpstreamVerdict.VERIFIED


def test_a_missing_signature_is_missing_and_not_broken() -> None:
    found = Variant().digested().check()
    assert (found.verdict, found.bundle) == (UpstreamVerdict.MISSING, None)


def test_a_signature_of_whom_nobody_spoke_is_not_checked() -> None:
    found = GOOD.check(KernelRef("strangers", "relu"))
    assert found.verdict is UpstreamVerdict.NOT_CHECKED
    assert "strangers" in found.detail
    assert found.bundle is not None


def test_any_of_several_publishers_of_one_organisation_counts() -> None:
    other = Publisher("acme", ISSUER, "https://github.com/acme/old", (WORKFLOW,))
    verifier = UpstreamVerifier((other, ACME), SIGSTORE.trusted_root)
    assert GOOD.check(verifier=verifier).verdict is UpstreamVerdict.VERIFIED


def described(**fields: Any) -> bytes:
    return json.dumps({"name": "relu", "version": 1} | fields).encode()


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        (b"[]", "is no object"),
        (b'{"a":1,"a":2}', "stands twice"),
        (b"\xff", "not JSON"),
        (b"{}", "about the kernel None"),
        (b'{"name":"relu"}', "about version None"),
        (described(version=True), "about version True"),
        (described(), "lists no sha256"),
        (described(digest={"algorithm": "md5", "files": {}}), "lists no sha256"),
        (described(digest={"algorithm": "sha256", "files": []}), "lists no sha256"),
        (
            described(
                digest={"algorithm": "sha256", "files": {"__init__.py": 7, "_ops.abi3.so": ""}}
            ),
            "__init__.py differs",
        ),
        (
            described(
                digest={"algorithm": "sha256", "files": {"__init__.py": "!", "_ops.abi3.so": ""}}
            ),
            "__init__.py differs",
        ),
    ],
)
def test_signed_metadata_that_says_nothing_usable_is_rejected(metadata: bytes, said: str) -> None:
    variant = Variant()
    variant.files[METADATA] = metadata
    found = variant.signed().check()
    assert found.verdict is UpstreamVerdict.REJECTED
    assert said in found.detail


def damaged(path: list[str | int], value: Any) -> bytes:
    document = json.loads(GOOD.files[SIGNATURE])
    place = document
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    return json.dumps(document).encode()


ENTRY: list[str | int] = ["verificationMaterial", "tlogEntries", 0]


@pytest.mark.parametrize(
    "bundle",
    [
        b"",
        b"{}",
        b"[" * 100_000,
        b'{"mediaType": 1}',
        damaged(["messageSignature", "signature"], base64.b64encode(b"x").decode()),
        damaged([*ENTRY, "canonicalizedBody"], base64.b64encode(b"{}").decode()),
        damaged([*ENTRY, "inclusionProof", "treeSize"], "-1"),
        damaged([*ENTRY, "inclusionProof", "checkpoint", "envelope"], "x"),
        damaged([*ENTRY, "inclusionPromise", "signedEntryTimestamp"], "AAAA"),
        damaged(["verificationMaterial", "tlogEntries"], []),
        damaged(["verificationMaterial", "certificate", "rawBytes"], "AAAA"),
    ],
)
def test_hostile_bundles_are_rejected_and_nothing_else_happens(bundle: bytes) -> None:
    variant = Variant(dict(GOOD.files) | {SIGNATURE: bundle})
    assert variant.check().verdict is UpstreamVerdict.REJECTED


def test_a_signature_without_metadata_and_one_too_large_are_rejected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bare = dict(GOOD.files)
    del bare[METADATA]
    assert Variant(bare).check().detail == "metadata.json is missing"
    monkeypatch.setattr(upstream, "MAX_SIGNED", 100)
    assert "bytes" in GOOD.check().detail
    assert GOOD.check().verdict is UpstreamVerdict.REJECTED


def test_bytes_that_are_not_those_of_the_manifest_are_rejected() -> None:
    class Rotten(Variant):
        def open(self, *_: object) -> list[bytes]:
            return [b"something else"]

    found = Rotten(GOOD.files).check()
    assert found.verdict is UpstreamVerdict.REJECTED
    assert "is not what was stored" in found.detail


@pytest.mark.parametrize("root", [b"", b"{}", b"[]", b'{"tlogs": []}'])
def test_an_unusable_trusted_root_is_a_trust_error_and_no_verdict(root: bytes) -> None:
    with pytest.raises(TrustError, match="trusted root cannot be used"):
        GOOD.check(verifier=UpstreamVerifier((ACME,), root))


def test_the_shipped_root_is_the_public_sigstores_and_believes_no_private_one() -> None:
    root = json.loads(shipped_root())
    assert "https://rekor.sigstore.dev" in {log["baseUrl"] for log in root["tlogs"]}
    public = UpstreamVerifier((ACME,))
    assert public.trusted_root == shipped_root()
    assert GOOD.check(verifier=public).verdict is UpstreamVerdict.REJECTED


def test_a_release_without_a_root_is_a_trust_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "_PRODUCTION", "nowhere")
    with pytest.raises(TrustError, match="carries no trusted root"):
        shipped_root()


def test_hugging_faces_workflows_are_those_that_the_client_believes() -> None:
    from kernels.verify import DEFAULT_POLICIES

    (theirs,) = DEFAULT_POLICIES
    assert f"https://github.com/{theirs.repo_id}" == HUGGING_FACE.repository
    assert tuple(theirs.signer_uris) == HUGGING_FACE.workflows
    assert HUGGING_FACE.repository != REPOSITORY
    assert VERIFIER.publishers == (ACME,)
