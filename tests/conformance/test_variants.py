"""Variant names as the `kernels` client itself reads them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernels.variants import parse_variant

from kgate_core.errors import InvalidInput
from kgate_core.kernel import Framework, Variant
from tests.steady import STEADY

FRAMEWORKS = ["torch29-cxx11", "torch213-cxx98", "torch210", "torch-stable-abi211", "tvm-ffi01"]
BACKENDS = ["cu130", "cu118", "rocm64", "xpu20252", "cann85", "cpu", "metal", "neuron", "tpu"]
MACHINES = ["x86_64-linux", "aarch64-linux", "aarch64-darwin", "x86_64-windows"]
NOARCH = [
    f"torch-{name}"
    for name in (
        "cpu", "cuda", "rocm", "xpu", "npu", "cann", "metal", "neuron", "tpu", "universal",
    )
]  # fmt: skip
TABLE = [f"{f}-{b}-{m}" for f in FRAMEWORKS for b in BACKENDS for m in MACHINES] + NOARCH

piece = st.sampled_from(
    [*FRAMEWORKS, *BACKENDS, *MACHINES, "torch", "torch-stable-abi", "tvm-ffi", "cxx11", "cu", "-"]
) | st.text("torchcuxabi019-_", max_size=4)
names = st.sampled_from(TABLE) | st.lists(piece, min_size=1, max_size=5).map("-".join)


def peer(text: str) -> tuple[Any, ...]:
    """Return what the client makes of a variant name, in our terms."""
    found = parse_variant(text)
    if type(found).__name__ == "NoarchVariant":
        return (Framework.TORCH, None, None, found.arch.backend_name, None, None, None)
    version, arch = found.framework.version, found.arch
    backend = getattr(arch.backend, "version", None)
    return (
        {
            "Torch": Framework.TORCH,
            "TorchStableAbi": Framework.TORCH_STABLE_ABI,
            "TvmFfi": Framework.TVM_FFI,
        }[type(found.framework).__name__],
        (version.major, version.minor),
        getattr(found.framework, "cxx11_abi", None),
        arch.backend.name,
        None if backend is None else (backend.major, backend.minor),
        arch.platform,
        arch.os,
    )


def ours(text: str) -> tuple[Any, ...]:
    found = Variant.parse(text)
    return (
        found.framework,
        found.framework_version,
        found.cxx11_abi,
        found.backend,
        found.backend_version,
        found.cpu,
        found.os,
    )


@pytest.mark.parametrize("text", TABLE)
def test_every_form_that_the_client_builds_is_read_alike(text: str) -> None:
    assert ours(text) == peer(text)
    assert parse_variant(text).variant_str == text


@settings(STEADY, max_examples=400)
@given(names)
def test_nothing_is_read_differently_and_nothing_is_read_that_the_client_rejects(text: str) -> None:
    try:
        found = ours(text)
    except InvalidInput:
        return
    assert found == peer(text)


@pytest.mark.parametrize(
    "text",
    [
        "torch-anything",
        "torch-../../etc",
        "torch213-cu130-x86 64-linux",
        "torch213-cu130-..-linux",
    ],
)
def test_what_only_the_client_reads_is_refused_here(text: str) -> None:
    assert parse_variant(text)
    with pytest.raises(InvalidInput):
        Variant.parse(text)
