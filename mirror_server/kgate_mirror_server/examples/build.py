"""Builds the example kernel `kernels-community/gelu-and-mul`, version 1, from the sources here.

Plain g++ and, for the CUDA variant, NVIDIA's compiler from PyPI; neither a CUDA installation nor a
GPU is needed, because the code uses PyTorch's stable C interface. The same sources and tools
give the same bytes. Windows, macOS and other processors are not built for.
"""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kgate_mirror_server.examples.cache import make_once
from kgate_mirror_server.examples.metadata import Metadata, write_metadata
from kgate_mirror_server.examples.toolchain import (
    compile_cpu,
    compile_cuda,
    find_toolchain,
    provide_cuda,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from kgate_mirror_server.examples.toolchain import Toolchain

REPO: Final = "kernels-community/gelu-and-mul"
VERSION: Final = 1
_NAME: Final = "gelu-and-mul"
_SOURCES: Final = Path(__file__).parent / "sources" / _NAME
_PLACEHOLDER: Final = "OPS_NAMESPACE"
_FORMAT: Final = 1  # raise it when this module writes other bytes from the same sources


@dataclass(frozen=True, slots=True)
class _Variant:
    name: str
    backend: str
    archs: tuple[str, ...]
    operators: str
    """The file in `python/` that becomes `_ops.py`."""


_PYTHON: Final = _Variant("torch-cpu", "cpu", (), "_ops_python.py.in")
_CPU: Final = _Variant("torch213-cxx11-cpu-x86_64-linux", "cpu", (), "_ops_native.py.in")
_CUDA: Final = _Variant(
    "torch213-cxx11-cu130-x86_64-linux", "cuda", ("8.0", "9.0+PTX"), "_ops_native.py.in"
)


def build_gelu_and_mul(
    cache: Path,
    *,
    native: bool = True,
    cuda: bool = True,
    progress: Callable[[str], None] | None = None,
) -> Path:
    """Return the folder of the built repository: `README.md` and `build/<variant>/…`.

    `native` adds the compiled CPU variant, `cuda` the compiled CUDA variant; `torch-cpu` is always
    there. What is in `cache` already is not built again. Raises InvalidInput if this machine lacks
    g++, Python's headers or PyTorch 2.13, and UpstreamError if PyPI cannot be reached.
    """
    say = progress or _say_nothing
    variants = [_PYTHON, *([_CPU] if native else []), *([_CUDA] if cuda else [])]
    toolchain = find_toolchain(_library_platform()) if native or cuda else None
    key = _key(variants, toolchain)

    def make(work: Path) -> None:
        tools = provide_cuda(cache, toolchain, say) if toolchain and cuda else toolchain
        repository = work / REPO
        for variant in variants:
            say(f"building {REPO} {variant.name}")
            _build(variant, repository / "build" / variant.name, work / "objects", tools)
        shutil.copyfile(_SOURCES / "README.md", repository / "README.md")

    return make_once(cache, f"{_NAME}-{key}", make) / REPO


def _build(variant: _Variant, target: Path, objects: Path, toolchain: Toolchain | None) -> None:
    namespace = f"_gelu_and_mul_{_short(variant)}_{_source_digest()[:8]}"
    target.mkdir(parents=True)
    for name in ("__init__.py", "layers.py"):
        shutil.copyfile(_SOURCES / "python" / f"{name}.in", target / name)
    operators = (_SOURCES / "python" / variant.operators).read_text(encoding="utf-8")
    (target / "_ops.py").write_text(operators.replace(_PLACEHOLDER, namespace), encoding="utf-8")
    if variant is not _PYTHON and toolchain is not None:
        # The compilers run in a folder of this name whatever the cache is called.
        shutil.copytree(_SOURCES / "csrc", objects)
        build = compile_cuda if variant is _CUDA else compile_cpu
        shutil.copyfile(build(toolchain, objects, namespace), target / f"{namespace}.abi3.so")
        shutil.rmtree(objects)
    described = Metadata(
        name=_NAME,
        identifier=namespace,
        version=VERSION,
        license="apache-2.0",
        backend=variant.backend,
        archs=variant.archs,
    )
    write_metadata(target, described)


def _short(variant: _Variant) -> str:
    return "python" if variant is _PYTHON else variant.backend


def _source_digest() -> str:
    state = hashlib.sha256()
    for path in sorted(_SOURCES.rglob("*")):
        if path.is_file():
            name = path.relative_to(_SOURCES).as_posix()
            state.update(f"{name}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return state.hexdigest()


def _key(variants: list[_Variant], toolchain: Toolchain | None) -> str:
    parts = {
        "format": _FORMAT,
        "sources": _source_digest(),
        "variants": [variant.name for variant in variants],
        "toolchain": toolchain.identity if toolchain else None,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _library_platform() -> str:
    return f"{platform.machine()}-{platform.system().lower()}"


def _say_nothing(_: str) -> None:
    """Nobody asked for progress."""
