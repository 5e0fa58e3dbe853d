"""The compilers: the machine's g++, the headers of the installed PyTorch, nvcc from PyPI.

It is found and described here, and run with command lines that leave no path, time or machine
name in what it produces. PyTorch is looked up, never imported.
"""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kgate_core.errors import InvalidInput
from kgate_mirror_server.examples.cache import make_once
from kgate_mirror_server.examples.wheels import CUDA_TOOLKIT, unpack_wheels

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_TORCH: Final = "2.13."
_TIMEOUT: Final = 600  # seconds for one compiler call
_CUDA_FOLDER: Final = "cuda-toolkit-13.0.88"
_CUDA_HOME: Final = "nvidia/cu13"  # where NVIDIA's wheels of CUDA 13 all unpack to
_HARDENING: Final = ("-fstack-protector-strong", "-fvisibility=hidden", "-D_FORTIFY_SOURCE=2")
_GENCODE: Final = (
    "-gencode=arch=compute_80,code=sm_80",
    "-gencode=arch=compute_90,code=[sm_90,compute_90]",
)


@dataclass(frozen=True, slots=True)
class Toolchain:
    """Where the compilers and headers are, and `identity`: what decides the bytes they make."""

    gxx: str
    torch: Path
    python_include: Path
    identity: str
    cuda: Path | None = None


def find_toolchain(machine: str) -> Toolchain:
    """Describe this machine's tools; raises InvalidInput naming the one that is missing.

    `machine` is `<processor>-<system>`, as in a variant's name.
    """
    if machine != "x86_64-linux":
        raise InvalidInput(f"the example kernels are compiled on x86_64-linux only, not {machine}")
    gxx = shutil.which("g++")
    if gxx is None:
        raise InvalidInput("g++ was not found", hint="install it (Debian, Ubuntu: g++)")
    try:
        torch = distribution("torch")
    except PackageNotFoundError as exc:
        raise InvalidInput("PyTorch is not installed", hint="pip install torch==2.13.0") from exc
    if not torch.version.startswith(_TORCH):
        raise InvalidInput(f"PyTorch {_TORCH}x is needed, {torch.version} is installed")
    include = Path(sysconfig.get_path("include"))
    if not (include / "Python.h").is_file():
        raise InvalidInput(
            f"Python.h is not in {include}", hint="install it (Debian, Ubuntu: python3-dev)"
        )
    compiler = _run([gxx, "--version"], Path.cwd()).splitlines()[0]
    toolkit = [str(wheel.digest) for wheel in CUDA_TOOLKIT]
    identity = "\n".join([compiler, torch.version, *toolkit, *_GENCODE])
    return Toolchain(gxx, Path(str(torch.locate_file("torch"))), include, identity)


def provide_cuda(cache: Path, toolchain: Toolchain, say: Callable[[str], None]) -> Toolchain:
    """Return the toolchain with nvcc, downloaded into `cache` the first time (100 MB)."""

    def make(work: Path) -> None:
        say("downloading the CUDA 13.0 compiler from PyPI (100 MB, once)")
        unpack_wheels(CUDA_TOOLKIT, work)
        # Wheels keep no permissions that pip's unpacking would not set itself.
        for folder in ("bin", "nvvm/bin"):
            for tool in (work / _CUDA_HOME / folder).iterdir():
                if tool.is_file():
                    tool.chmod(0o755)

    return replace(toolchain, cuda=make_once(cache, _CUDA_FOLDER, make) / _CUDA_HOME)


def compile_cpu(toolchain: Toolchain, folder: Path, namespace: str) -> Path:
    """Compile the CPU library from the sources in `folder`; returns its path."""
    _compile(toolchain, folder, "cpu.cpp", namespace)
    _compile(toolchain, folder, "module.c", namespace)
    return _link(toolchain, folder, ["cpu.o", "module.o"], [])


def compile_cuda(toolchain: Toolchain, folder: Path, namespace: str) -> Path:
    """Compile the CUDA library from the sources in `folder`; returns its path."""
    if toolchain.cuda is None:
        raise InvalidInput("the toolchain has no CUDA compiler", hint="call provide_cuda first")
    nvcc = [str(toolchain.cuda / "bin" / "nvcc"), "-std=c++17", "-O3", *_GENCODE]
    nvcc += [
        "--compiler-bindir",
        toolchain.gxx,
        "--compiler-options",
        ",".join(_host_flags(folder)),
    ]
    nvcc += ["--objdir-as-tempdir", "-c", "cuda.cu", "-o", "device.o"]
    _run(nvcc, folder)
    _compile(toolchain, folder, "cuda.cpp", namespace)
    _compile(toolchain, folder, "module.c", namespace)
    runtime = str(toolchain.cuda / "lib" / "libcudart.so.13")
    return _link(toolchain, folder, ["cuda.o", "device.o", "module.o"], [runtime])


def _host_flags(folder: Path) -> list[str]:
    return ["-fPIC", *_HARDENING, f"-ffile-prefix-map={folder}=."]


def _compile(toolchain: Toolchain, folder: Path, source: str, namespace: str) -> None:
    language = ["-xc"] if source.endswith(".c") else ["-std=c++20"]
    torch = toolchain.torch / "include"
    command = [toolchain.gxx, *language, "-O2", *_host_flags(folder)]
    command += [f"-ffile-prefix-map={torch}=torch", f"-DOPS_NAMESPACE={namespace}"]
    command += ["-isystem", str(torch), "-isystem", str(toolchain.python_include)]
    _run([*command, "-c", source, "-o", Path(source).stem + ".o"], folder)


def _link(
    toolchain: Toolchain, folder: Path, objects: Sequence[str], libraries: Sequence[str]
) -> Path:
    command = [toolchain.gxx, "-shared", "-s", "-Wl,-z,relro,-z,now", "-o", "library.so", *objects]
    # PyTorch opens its libraries privately, so the one that is used has to be named.
    _run([*command, str(toolchain.torch / "lib" / "libtorch_cpu.so"), *libraries], folder)
    return folder / "library.so"


def _run(command: list[str], folder: Path) -> str:
    name = Path(command[0]).name
    try:
        done = subprocess.run(  # noqa: S603  # our own command lines, no shell
            command, cwd=folder, capture_output=True, text=True, timeout=_TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise InvalidInput(f"{name} could not be run: {exc}") from exc
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["it said nothing"]
        raise InvalidInput(f"{name} failed: {lines[0]}")
    return done.stdout
