"""`why` chooses like the stock client, and says what stands in the way."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernels import archs as stock_archs
from kernels import backends as stock_backends
from kernels import variants as stock
from packaging.version import Version

from kgate_core.errors import InvalidInput
from kgate_core.evidence import Outcome, RuleResult
from kgate_policy.why import (
    Machine,
    consider,
    machines,
    parse_version,
    supports,
    uncovered,
    why,
)

FRAMEWORKS = ["torch213", "torch213-cxx11", "torch213-cxx98", "torch212-cxx11", "tvm-ffi01"]
FRAMEWORKS += ["torch-stable-abi210", "torch-stable-abi213", "torch-stable-abi214"]
BACKENDS = ["cpu", "cu126", "cu128", "cu130", "cu131", "rocm71", "rocm64", "xpu20252", "metal"]
BACKENDS += ["cann90", "neuron", "tpu"]
PLATFORMS = ["x86_64-linux", "aarch64-linux", "aarch64-darwin", "x86_64-windows"]
NOARCH = [f"torch-{name}" for name in ("cpu", "cuda", "rocm", "xpu", "npu", "metal", "universal")]
EVERY = ["-".join(parts) for parts in product(FRAMEWORKS, BACKENDS, PLATFORMS)] + NOARCH

STOCK_BACKENDS = {
    "cuda": stock_backends.CUDA,
    "rocm": stock_backends.ROCm,
    "xpu": stock_backends.XPU,
    "cann": stock_backends.CANN,
}
PLAIN = {
    "cpu": stock_backends.CPU,
    "metal": stock_backends.Metal,
    "neuron": stock_backends.Neuron,
    "tpu": stock_backends.TPU,
}


def any_machine() -> st.SearchStrategy[Machine]:
    """Return machines of every backend, with matching versions or none."""
    pairs = st.one_of(
        st.tuples(st.sampled_from(sorted(PLAIN)), st.none()),
        st.tuples(
            st.sampled_from(sorted(STOCK_BACKENDS)),
            st.sampled_from(
                [(12, 6), (12, 8), (13, 0), (13, 5), (7, 1), (6, 4), (2025, 2), (9, 0)]
            ),
        ),
    )
    return st.builds(
        lambda pair, torch, abi, place, tvm, macos: Machine(
            pair[0], pair[1], torch, abi, place[0], place[1], tvm, macos
        ),
        pairs,
        st.sampled_from([None, (2, 12), (2, 13), (2, 14)]),
        st.sampled_from([None, True, False]),
        st.sampled_from([tuple(name.split("-")) for name in PLATFORMS]),
        st.sampled_from([None, (0, 1), (0, 2)]),
        st.sampled_from([None, (15, 0), (26, 1)]),
    )


def as_version(version: tuple[int, int] | None) -> Version | None:
    """Return a version as the stock client holds it."""
    return None if version is None else Version(f"{version[0]}.{version[1]}")


@settings(max_examples=150, deadline=None)
@given(any_machine(), st.lists(st.sampled_from(EVERY), unique=True, max_size=40))
def test_the_choice_is_that_of_the_stock_client(machine: Machine, names: list[str]) -> None:
    backend = (
        PLAIN[machine.backend]()
        if machine.backend in PLAIN
        else STOCK_BACKENDS[machine.backend](version=as_version(machine.backend_version))
    )
    chosen, trace = stock._resolve_variant_for_system(
        variants=[stock.parse_variant(name) for name in names],
        selected_backend=backend,
        cpu=machine.cpu,
        os=machine.os,
        torch_version=as_version(machine.torch),
        torch_cxx11_abi=machine.cxx11_abi,
        tvm_ffi_version=as_version(machine.tvm_ffi),
        macos_version=as_version(machine.macos),
    )
    ours = consider(names, machine)
    assert [str(i.variant) for i in ours if i.fits] == [v.variant_str for v in chosen]
    assert [str(i.variant) for i in ours] == [step.variant.variant_str for step in trace]
    assert all(bool(item.reason) is not item.fits for item in ours)


DECLARED = ["7.0", "8.0", "8.6", "9.0", "9.0a", "10.0", "10.0f", "10.3", "12.0a", "8.0+PTX", "new"]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from(DECLARED), min_size=1, max_size=4),
    st.sampled_from([(7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (10, 3), (12, 0), (12, 1)]),
)
def test_architectures_are_read_as_the_stock_client_reads_them(
    declared: list[str], capability: tuple[int, int]
) -> None:
    ours = supports(declared, f"sm_{capability[0]}{capability[1]}")
    theirs = stock_archs._supports_cuda_capability(declared, capability)
    assert (ours is not False) is theirs


def test_amd_gpus_and_unknown_gpus() -> None:
    assert supports(["gfx90a", "gfx942"], "gfx942:sramecc+:xnack-") is True
    assert supports(["gfx90a"], "gfx942") is False
    assert supports([], "sm_90") is None
    assert supports(["9.0"], "") is None


H100 = Machine("cuda", (13, 0), (2, 13), gpu="sm_90")
NATIVE, OLDER, NOARCH_CUDA = (
    "torch213-cxx11-cu130-x86_64-linux",
    "torch213-cxx11-cu128-x86_64-linux",
    "torch-cuda",
)


def test_what_is_published_and_preferred_loads() -> None:
    answer = why([NOARCH_CUDA, NATIVE], H100, published=[NATIVE, NOARCH_CUDA])
    assert (answer.loads, answer.wanted, answer.obstacles) == (NATIVE, NATIVE, ())


def test_a_denied_variant_is_named_with_its_rules() -> None:
    denial = RuleResult("no-dirty-build", Outcome.DENY, "dirty")
    answer = why([NATIVE, NOARCH_CUDA], H100, published=[NOARCH_CUDA], denials={NATIVE: (denial,)})
    assert answer.loads == NOARCH_CUDA
    assert answer.obstacles == (f"{NATIVE} was denied: no-dirty-build",)
    assert answer.to_json()["denials"][0]["rule"] == "no-dirty-build"


def test_a_variant_that_nobody_pinned_is_named() -> None:
    answer = why([NATIVE], H100, published=[])
    assert answer.loads is None
    assert answer.obstacles == (f"{NATIVE} is not published: nobody pinned it",)


def test_a_machine_that_nothing_was_built_for_is_told_why() -> None:
    answer = why([OLDER], H100, published=[OLDER])
    assert answer.loads is None
    assert answer.obstacles == ("no variant was built for this machine",)
    assert answer.considered[0].reason == "needs cuda 12.8, which does not run on cuda 13.0"


def test_a_gpu_that_the_variant_does_not_support_is_an_obstacle() -> None:
    answer = why([NATIVE], H100, published=[NATIVE], archs={NATIVE: ("8.0", "10.0")})
    assert answer.loads == NATIVE
    assert answer.obstacles == (f"{NATIVE} declares 8.0, 10.0 only and refuses to load on sm_90",)


@pytest.mark.parametrize(("backend", "version"), [("cuda", None), ("cpu", (1, 0))])
def test_a_backend_and_its_version_go_together(
    backend: str, version: tuple[int, int] | None
) -> None:
    with pytest.raises(InvalidInput, match="do not go together"):
        Machine(backend, version)


def test_targets_of_a_fleet_become_machines() -> None:
    fleet = machines(torch="2.13.0+cu130", backend="cuda", version="13.0", gpus=["sm_80", "sm_90"])
    assert [machine.gpu for machine in fleet] == ["sm_80", "sm_90"]
    assert fleet[0].torch == (2, 13)
    assert fleet[0].backend_version == (13, 0)
    (plain,) = machines(torch=None, backend="cpu", os="darwin", cpu="aarch64")
    assert (plain.torch, plain.cxx11_abi, plain.gpu) == (None, None, "")


@pytest.mark.parametrize("text", ["2", "", "two.1", "2.x", "v2.1"])
def test_what_is_no_version_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="not a version"):
        parse_version(text)


def test_machines_that_nothing_would_load_on_are_named() -> None:
    fleet = machines(torch="2.13", backend="cuda", version="13.0", gpus=["sm_80", "sm_90"])
    fleet += machines(torch="2.13", backend="rocm", version="7.1", gpus=["gfx942"])
    assert [m.gpu for m in uncovered([NATIVE], fleet)] == ["gfx942"]
    assert [m.gpu for m in uncovered([NATIVE], fleet, archs={NATIVE: ("9.0",)})] == [
        "sm_80",
        "gfx942",
    ]
    assert len(uncovered([], fleet)) == 3
