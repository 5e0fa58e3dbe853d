from __future__ import annotations

from typing import Any

import pytest

from kgate_core.kernel import Variant
from kgate_scanner.libraries import check_libraries, platform_library, pypi_project
from tests.scankit import CPU


def found(path: str, variant: str | None = CPU, **facts: Any) -> list[str]:
    parsed = None if variant is None else Variant.parse(variant)
    return [finding.rule for finding in check_libraries({path: facts}, parsed)]


@pytest.mark.parametrize(
    ("soname", "family", "project"),
    [
        ("libc.so.6", "system", None),
        ("ld-linux-aarch64.so.1", "system", None),
        ("libstdc++.so.6", "system", None),
        ("libcudart.so.12", "cuda", "nvidia-cuda-runtime-cu12"),
        ("libcudart.so.11.0", "cuda", "nvidia-cuda-runtime-cu11"),
        ("libcudart.so.13", "cuda", "nvidia-cuda-runtime"),
        ("libcublasLt.so.12", "cuda", "nvidia-cublas-cu12"),
        ("libcudnn.so.9", "cuda", None),
        ("libcuda.so.1", "cuda", None),
        ("libamdhip64.so.7", "rocm", None),
        ("libhipblaslt.so.1", "rocm", None),
        ("libtorch_cpu.so", "torch", "torch"),
        ("libc10_cuda.so", "torch", "torch"),
        ("libsycl.so.8", "xpu", "intel-sycl-rt"),
        ("libpython3.11.so.1.0", "python", None),
    ],
)
def test_the_platform_is_known_by_sonames(soname: str, family: str, project: str | None) -> None:
    library = platform_library(soname)
    assert library is not None
    assert (library.family, pypi_project(soname)) == (family, project)


@pytest.mark.parametrize(
    "soname", ["libevil.so", "libc.so.6.1", "xlibc.so.6", "libtorch_evil.so", "", "/lib/libc.so.6"]
)
def test_a_name_that_only_resembles_the_platform_is_not_of_it(soname: str) -> None:
    assert platform_library(soname) is None
    assert pypi_project(soname) is None
    assert found("a.so", needed=[soname]) == ["KG-HOST-001"]


def test_a_library_that_the_variant_ships_is_in_the_set_by_file_name_or_soname() -> None:
    hosts: dict[str, dict[str, Any]] = {
        "a.so": {"needed": ["libb.so.1", "c.so"]},
        "lib/b.so": {"soname": "libb.so.1"},
        "lib/c.so": {},
    }
    assert list(check_libraries(hosts, None)) == []


@pytest.mark.parametrize(
    ("path", "entry", "outside"),
    [
        ("a.so", "$ORIGIN", False),
        ("a.so", "${ORIGIN}/lib", False),
        ("lib/a.so", "$ORIGIN/..", False),
        ("lib/a.so", "$ORIGIN/../other/./lib", False),
        ("a.so", "$ORIGIN/..", True),
        ("lib/a.so", "$ORIGIN/../..", True),
        ("lib/a.so", "$ORIGIN/../../variant/lib", True),
        ("a.so", "$ORIGINAL", True),
        ("a.so", "/opt/rocm/lib", True),
        ("a.so", "lib", True),
        ("a.so", "", True),
        ("a.so", "$ORIGIN/$LIB", True),
    ],
)
@pytest.mark.parametrize("kind", ["rpath", "runpath"])
def test_a_run_path_stays_inside_the_variant(
    path: str, entry: str, kind: str, *, outside: bool
) -> None:
    facts: dict[str, Any] = {kind: [entry]}
    assert found(path, **facts) == (["KG-HOST-002"] if outside else [])


def test_the_machine_is_the_variants() -> None:
    arm = "torch213-cxx11-cpu-aarch64-linux"
    assert found("a.so", CPU, machine="x86_64") == []
    assert found("a.so", arm, machine="aarch64") == []
    assert found("a.so", arm, machine="x86_64") == ["KG-HOST-012"]
    assert found("a.so", "torch-cpu", machine="x86_64") == []
    assert found("a.so", None, machine="x86_64") == []


@pytest.mark.parametrize(
    ("variant", "abi", "wrong"),
    [
        ("torch-stable-abi29-cpu-x86_64-linux", "stable", False),
        ("torch-stable-abi29-cpu-x86_64-linux", "cxx11", True),
        ("torch-stable-abi29-cpu-x86_64-linux", "cxx", True),
        ("tvm-ffi01-cpu-x86_64-linux", None, False),
        ("tvm-ffi01-cpu-x86_64-linux", "stable", True),
        ("torch27-cxx98-cpu-x86_64-linux", "cxx11", True),
        (CPU, "cxx11", False),
    ],
)
def test_the_torch_interface_is_the_variants(variant: str, abi: str | None, *, wrong: bool) -> None:
    assert found("a.so", variant, torchAbi=abi) == (["KG-HOST-013"] if wrong else [])
