"""T14, and T06 at sync: an upstream signature by somebody else, for something else, expired."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from kgate_core.kernel import KernelRef
from kgate_signer.predicates import UpstreamVerdict
from kgate_signer.upstream import METADATA, SIGNATURE
from tests.sigstorekit import ISSUER, REPOSITORY, SIGNED_AT, WORKFLOW, PrivateSigstore
from tests.upstreamkit import Variant

GOOD = Variant().digested().signed()


def rejection(variant: Variant, **asked: Any) -> str:
    found = variant.check(**asked)
    assert found.verdict is UpstreamVerdict.REJECTED, found
    return found.detail


def test_the_genuine_one_is_verified() -> None:
    assert GOOD.check().verdict is UpstreamVerdict.VERIFIED


@pytest.mark.parametrize(
    "identity",
    [
        {"workflow": WORKFLOW.replace("build.yaml", "evil.yaml")},
        {"workflow": WORKFLOW.replace("refs/heads/main", "refs/pull/7/merge")},
        {"workflow": WORKFLOW.replace("acme/kernels", "mallory/kernels")},
        {"repository": REPOSITORY.replace("acme", "mallory")},
        {"issuer": ISSUER.replace("actions", "act1ons")},
    ],
)
def test_a_signature_by_another_identity_is_rejected(identity: dict[str, Any]) -> None:
    assert "does not count" in rejection(Variant().digested().signed(**identity))


def test_a_signature_under_other_roots_is_rejected() -> None:
    assert "does not count" in rejection(Variant().digested().signed(PrivateSigstore()))


@pytest.mark.parametrize("minutes", [-2, 10, 60 * 24])
def test_a_signature_outside_its_certificates_ten_minutes_is_rejected(minutes: int) -> None:
    late = SIGNED_AT + timedelta(minutes=minutes)
    assert "does not count" in rejection(Variant().digested().signed(logged_at=late))


def test_a_genuine_signature_on_another_kernel_is_rejected() -> None:
    # Upstream's own check says "Success" here: it never compares the name.
    said = rejection(GOOD, repo=KernelRef("acme", "attention"))
    assert said == "the signature is about the kernel 'relu', asked for 'attention'"


def test_a_genuine_signature_on_another_version_is_rejected() -> None:
    old = Variant({"__init__.py": b"vulnerable = True\n"}).digested().signed()
    assert rejection(old, version=2) == "the signature is about version 1, asked for 2"


def test_a_genuine_signature_moved_beside_other_metadata_is_rejected() -> None:
    other = Variant({"__init__.py": b"import os\n"}).digested()
    other.files[SIGNATURE] = GOOD.files[SIGNATURE]
    assert "does not count" in rejection(other)


def test_changed_extra_and_missing_files_are_rejected() -> None:
    changed = Variant(dict(GOOD.files) | {"__init__.py": b"import os\n"})
    assert rejection(changed) == "__init__.py differs from the signed digest"
    extra = Variant(dict(GOOD.files) | {"extra.py": b""})
    assert rejection(extra) == "extra.py is not covered by the signature"
    files = dict(GOOD.files)
    del files["_ops.abi3.so"]
    assert rejection(Variant(files)) == "_ops.abi3.so is missing"


@pytest.mark.parametrize("path", ["__pycache__/__init__.cpython-311.pyc", "payload.pyc"])
def test_bytecode_that_upstreams_check_passes_over_is_rejected(path: str) -> None:
    smuggled = Variant(dict(GOOD.files) | {path: b"\xa7\r\r\n"})
    assert rejection(smuggled) == f"{path} is not covered by the signature"


def test_one_byte_of_the_metadata_is_enough() -> None:
    data = GOOD.files[METADATA]
    changed = Variant(dict(GOOD.files) | {METADATA: data + b" "})
    assert "does not count" in rejection(changed)
