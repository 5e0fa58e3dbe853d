"""The closed set of libraries: what a kernel may need without shipping it, and where it may look.

Knows sonames and the packages that usually bring them. It reads no files: it works on the host
facts of all libraries of a variant.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from kgate_core.kernel import Framework
from kgate_scanner import rules_host as rules

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kgate_core.evidence import Finding
    from kgate_core.kernel import Variant


@dataclass(frozen=True, slots=True)
class Library:
    """A family of sonames that the platform provides, and the PyPI project that ships it."""

    pattern: re.Pattern[str]
    family: str
    """`system`, `cuda`, `rocm`, `torch`, `xpu`, `python` or `tvm`."""
    project: str | None = None
    """PyPI project; `{major}` stands for the soname's version."""


def _library(pattern: str, family: str, project: str | None = None) -> Library:
    return Library(re.compile(pattern), family, project)


PLATFORM: Final = (
    _library(r"lib(?:c|m|dl|pthread|rt|util|resolv)\.so\.\d", "system"),
    _library(r"ld-linux(?:-x86-64|-aarch64)?\.so\.\d", "system"),
    _library(r"lib(?:stdc\+\+|gcc_s|gomp|atomic)\.so\.\d", "system"),
    _library(r"libcuda\.so\.1", "cuda"),
    _library(r"libnvidia-ml\.so\.1", "cuda"),
    _library(r"libcudart\.so\.(\d+)(?:\.\d)?", "cuda", "nvidia-cuda-runtime"),
    _library(r"libnvrtc(?:-builtins)?\.so\.(\d+)(?:\.\d)?", "cuda", "nvidia-cuda-nvrtc"),
    _library(r"libcublas(?:Lt)?\.so\.(\d+)", "cuda", "nvidia-cublas"),
    _library(r"libcusparse\.so\.(\d+)", "cuda", "nvidia-cusparse"),
    _library(r"libcusparseLt\.so\.\d", "cuda", "nvidia-cusparselt"),
    _library(r"libcusolver(?:Mg)?\.so\.(\d+)", "cuda", "nvidia-cusolver"),
    _library(r"libcufftw?\.so\.(\d+)", "cuda", "nvidia-cufft"),
    _library(r"libcurand\.so\.(\d+)", "cuda", "nvidia-curand"),
    _library(r"libcufile(?:_rdma)?\.so\.(\d+)", "cuda", "nvidia-cufile"),
    _library(r"libcupti\.so\.(\d+)(?:\.\d)?", "cuda", "nvidia-cuda-cupti"),
    _library(r"libnvJitLink\.so\.(\d+)", "cuda", "nvidia-nvjitlink"),
    _library(r"libnvToolsExt\.so\.(\d+)", "cuda", "nvidia-nvtx"),
    _library(r"libcudnn(?:_\w+)?\.so\.(\d+)", "cuda", "nvidia-cudnn"),
    _library(r"libnccl\.so\.(\d+)", "cuda", "nvidia-nccl"),
    _library(r"libnvshmem_host\.so\.(\d+)", "cuda", "nvidia-nvshmem"),
    _library(r"lib(?:amdhip64|hiprtc(?:-builtins)?|hsa-runtime64|amd_comgr)\.so(?:\.\d+)?", "rocm"),
    _library(
        r"lib(?:roc|hip)(?:blas|blaslt|sparse|sparselt|solver|fft|rand|prim|tx64)\.so(?:\.\d+)?",
        "rocm",
    ),
    _library(
        r"lib(?:rccl|MIOpen|roctx64|roctracer64|rocprofiler-sdk(?:-roctx)?)\.so(?:\.\d+)?", "rocm"
    ),
    _library(r"libtorch(?:_cpu|_cuda|_hip|_xpu|_python|_global_deps)?\.so", "torch", "torch"),
    _library(r"libc10(?:_cuda|_hip|_xpu)?\.so", "torch", "torch"),
    _library(r"libshm\.so", "torch", "torch"),
    _library(r"libsycl(?:-preview)?\.so(?:\.\d+)?", "xpu", "intel-sycl-rt"),
    _library(r"libur_loader\.so\.\d", "xpu", "intel-cmplr-lib-ur"),
    _library(r"lib(?:ze_loader|OpenCL)\.so\.1", "xpu"),
    _library(r"lib(?:imf|svml|irng|intlc|iomp5)\.so(?:\.\d)?", "xpu", "intel-cmplr-lib-rt"),
    _library(r"libmkl_\w+\.so(?:\.\d)?", "xpu", "mkl"),
    _library(r"libdnnl\.so\.\d", "xpu", "onednn"),
    _library(r"libpython3\.\d+(?:t)?\.so\.1\.0", "python"),
    _library(r"libpython3\.so", "python"),
    _library(r"libtvm_ffi\.so", "tvm", "apache-tvm-ffi"),
)
_SUFFIXED_BELOW: Final = 13
"""From CUDA 13 on, NVIDIA's PyPI projects carry no -cuNN suffix."""
_VERSIONED_WITH_CUDA: Final = frozenset(
    {"nvidia-cuda-runtime", "nvidia-cublas", "nvidia-cuda-nvrtc"}
)
_MACHINES: Final = {"x86_64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}


def platform_library(soname: str) -> Library | None:
    """Return what is known about a soname, None if the platform does not provide it."""
    return next((entry for entry in PLATFORM if entry.pattern.fullmatch(soname)), None)


def pypi_project(soname: str) -> str | None:
    """Return the PyPI project that usually ships a soname, None if it cannot be told."""
    entry = platform_library(soname)
    if entry is None or entry.project is None:
        return None
    if entry.family != "cuda":
        return entry.project
    # Only these share their major version with CUDA itself; of the others (cuDNN 9, NCCL 2) the
    # soname does not tell for which CUDA they were built.
    found = entry.pattern.fullmatch(soname)
    major = found[1] if found is not None and found.re.groups else None
    if entry.project in _VERSIONED_WITH_CUDA and major is not None:
        number = int(major)
        return entry.project if number >= _SUFFIXED_BELOW else f"{entry.project}-cu{number}"
    return None


def check_libraries(
    hosts: Mapping[str, Mapping[str, Any]], variant: Variant | None
) -> Iterator[Finding]:
    """Yield what the libraries of one variant need from, or look for, outside of it.

    `hosts` maps each library's path to its host facts.
    """
    shipped = {PurePosixPath(path).name for path in hosts}
    shipped |= {str(facts["soname"]) for facts in hosts.values() if facts.get("soname")}
    for path, facts in sorted(hosts.items()):
        for name in facts.get("needed", ()):
            if name not in shipped and platform_library(name) is None:
                yield rules.OPEN_SET.finding(path, f"needs {name}")
        for kind in ("rpath", "runpath"):
            for entry in facts.get(kind, ()):
                if (why := _leaves(entry, path)) is not None:
                    yield rules.SEARCH_PATH.finding(path, f"{kind.upper()} {entry!r} {why}")
        if variant is not None:
            yield from _check_variant(path, facts, variant)


def _leaves(entry: str, path: str) -> str | None:
    """Say how a search path leaves the variant, None if it stays inside."""
    text = entry.replace("${ORIGIN}", "$ORIGIN")
    if not text:
        return "is empty: the current directory is searched"
    if text != "$ORIGIN" and not text.startswith("$ORIGIN/"):
        return "is not relative to the library"
    depth = len(PurePosixPath(path).parts) - 1
    for part in text.split("/")[1:]:
        if "$" in part:
            return "is filled in by the loader"
        if part == "..":
            depth -= 1
        elif part not in {"", "."}:
            depth += 1
        if depth < 0:
            return "leads out of the variant"
    return None


def _check_variant(path: str, facts: Mapping[str, Any], variant: Variant) -> Iterator[Finding]:
    machine = facts.get("machine")
    if variant.cpu is not None and machine is not None:
        expected = _MACHINES.get(variant.cpu, variant.cpu)
        if machine != expected:
            yield rules.WRONG_MACHINE.finding(path, f"built for {machine}, not for {expected}")
    abi = facts.get("torchAbi")
    if variant.framework is Framework.TORCH_STABLE_ABI and abi in {"cxx11", "cxx"}:
        yield rules.WRONG_ABI.finding(path, "uses C++ symbols of torch outside its stable ABI")
    if variant.framework is Framework.TVM_FFI and abi is not None:
        yield rules.WRONG_ABI.finding(path, "uses torch symbols in a tvm-ffi variant")
    if variant.cxx11_abi is False and abi == "cxx11":
        yield rules.WRONG_ABI.finding(path, "uses the C++11 string ABI in a cxx98 variant")
