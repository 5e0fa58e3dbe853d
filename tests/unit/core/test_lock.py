from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from kgate_core.digest import Digest
from kgate_core.errors import InvalidInput
from kgate_core.kernel import KernelRef, RepoType, Revision
from kgate_core.lock import Lock, LockedKernel, LockedVariant

VARIANT = LockedVariant(Digest.of(b"m"), 4096, 7)
RELU = LockedKernel(
    "https://huggingface.co",
    RepoType.KERNEL,
    KernelRef("acme", "relu"),
    "experimental",
    "v1",
    Revision("a" * 40),
    {"torch-cpu": VARIANT, "torch-cuda": VARIANT},
    (f"acme/base@{'b' * 40}",),
)
GELU = replace(RELU, repo=KernelRef("acme", "gelu"), depends=())


def test_a_lock_is_sorted_readable_and_read_back() -> None:
    lock = Lock((RELU, GELU))
    data = lock.to_bytes()
    assert [str(kernel.repo) for kernel in lock.kernels] == ["acme/gelu", "acme/relu"]
    assert Lock.parse(data) == Lock((GELU, RELU)) == lock
    assert Lock.parse(data).to_bytes() == data
    assert data.startswith(b'{\n  "schema": "kgate.dev/lock/v1",\n')
    assert data.endswith(b"}\n")
    assert Lock.parse(Lock(()).to_bytes()).kernels == ()


def test_one_pin_stands_once_in_a_lane() -> None:
    assert len(Lock((RELU, replace(RELU, lane="production"), replace(RELU, pin="v2"))).kernels) == 3
    with pytest.raises(InvalidInput, match="acme/relu v1 in lane experimental stands twice"):
        Lock((RELU, GELU, replace(RELU, commit=Revision("b" * 40))))


def lock_with(**changes: Any) -> bytes:
    document = json.loads(Lock((RELU,)).to_bytes())
    document["kernels"][0] |= changes
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b'{"schema":"kgate.dev/lock/v2","kernels":[]}', "this version reads"),
        (b'{"schema":"kgate.dev/lock/v1","kernels":[],"x":1}', "unknown field 'x'"),
        (b'{"schema":"kgate.dev/lock/v1","kernels":[1]}', r"kernels\[0\]: expected an object"),
        (lock_with(more=1), r"kernels\[0\] \(acme/relu\): unknown field 'more'"),
        (lock_with(commit="v1"), r"kernels\[0\] \(acme/relu\): not a commit"),
        (lock_with(origin="x"), r"\(acme/relu\): not an upstream origin"),
        (lock_with(type="dataset"), "unknown repository type 'dataset'"),
        (lock_with(pin=1), "'pin' should be str"),
        (lock_with(repo="relu"), "not a repository name"),
        (lock_with(depends=[1]), "list of strings"),
        (lock_with(variants={}), "no variants"),
        (lock_with(variants={"torch-x": {}}), "not a build variant"),
        (lock_with(variants={"torch-cpu": 5}), "torch-cpu: expected an object, found int"),
        (lock_with(variants={"torch-cpu": {}}), "'manifest' is missing"),
        (lock_with(variants={"torch-cpu": {"sha": 1}}), "unknown field 'sha'"),
    ],
)
def test_a_lock_that_is_wrong_names_the_entry_and_the_field(data: bytes, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        Lock.parse(data)
