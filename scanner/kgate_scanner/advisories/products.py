"""Products as advisories call them, and what of a kernel they are.

Only products that can be inside a kernel are known: toolkits that compiled its device code, and
libraries that it can ship. A driver or an operating system is nobody's kernel and is passed over.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from kgate_scanner.advisories.model import Kind


@dataclass(frozen=True, slots=True)
class Product:
    """One product under the names that advisories use."""

    kind: Kind
    name: str
    """`cuda` or `rocm` for toolkits; else the PyPI project without -cuNN."""
    pattern: re.Pattern[str]
    soname: str = ""
    """How its library's file name begins; empty for toolkits."""


def _toolkit(name: str, pattern: str) -> Product:
    return Product(Kind.TOOLKIT, name, re.compile(pattern, re.IGNORECASE))


def _library(project: str, pattern: str, soname: str) -> Product:
    return Product(Kind.PACKAGE, project, re.compile(rf"\b{pattern}\b", re.IGNORECASE), soname)


PRODUCTS: Final = (
    _library("nvidia-nvjpeg2k", r"(?:lib)?nvjpeg[ -]?(?:2000|2k)", "libnvjpeg2k"),
    _library("nvidia-nvjpeg", r"(?:lib)?nvjpeg", "libnvjpeg."),
    _library("nvidia-nvtiff", r"(?:lib)?nvtiff", "libnvtiff"),
    _library("nvidia-npp", r"(?:lib)?npp(?:i[a-z]*|s|c)?", "libnpp"),
    _library("nvidia-cublas", r"(?:lib)?cublas(?:lt)?", "libcublas"),
    _library("nvidia-cufft", r"(?:lib)?cufftw?", "libcufft"),
    _library("nvidia-curand", r"(?:lib)?curand", "libcurand"),
    _library("nvidia-cusolver", r"(?:lib)?cusolver(?:mg)?", "libcusolver"),
    _library("nvidia-cusparselt", r"(?:lib)?cusparselt", "libcusparseLt"),
    _library("nvidia-cusparse", r"(?:lib)?cusparse", "libcusparse."),
    _library("nvidia-cudnn", r"(?:lib)?cudnn", "libcudnn"),
    _library("nvidia-nccl", r"(?:lib)?nccl", "libnccl"),
    _library("nvidia-nvshmem", r"(?:lib)?nvshmem", "libnvshmem"),
    _library("nvidia-cufile", r"(?:lib)?cufile|gpudirect storage", "libcufile"),
    _library("nvidia-cuda-nvrtc", r"(?:lib)?nvrtc|runtime compilation library", "libnvrtc"),
    _library("nvidia-nvjitlink", r"(?:lib)?nvjitlink", "libnvJitLink"),
    _library("nvidia-cuda-cupti", r"(?:lib)?cupti", "libcupti"),
    _library("nvidia-cuda-runtime", r"(?:lib)?cudart|cuda runtime", "libcudart"),
    _toolkit("cuda", r"\bcuda(?:®|\(r\))?\s*toolkit\b"),
    _toolkit("rocm", r"\brocm\b"),
)
TOOLS: Final = re.compile(
    r"\b(?:cuobjdump|nvdisasm|nvprune|nvcc|ptxas|fatbinary|nvlink|cudafe\+\+|bin2c|cu\+\+filt"
    r"|cuda-gdb|cuda-memcheck|compute[ -]sanitizer|nvprof|nvidia visual profiler|visual profiler"
    r"|nsight(?:\s+(?:compute|systems|eclipse|visual studio)\w*)?)(?![\w+])",
    re.IGNORECASE,
)
"""Programs of a toolkit that never become a part of what they work on."""
MISCOMPILES: Final = re.compile(
    r"\b(?:generat\w*|compil\w*|produc\w*|emit\w*)\s+(?:\w+\s+){0,2}"
    r"(?:code|binar\w+|kernels?|ptx|sass|instructions?|output)\b",
    re.IGNORECASE,
)
"""A tool's fault that ends up in what it made."""
# Words that may stand around a product's name in the name of one of its versions.
_AROUND: Final = ("NVIDIA", "CUDA Toolkit", "CUDA", "ROCm", "Library", "SDK", "release")


def product_of(*names: str) -> Product | None:
    """Return the product that one of these names means, None if it cannot be in a kernel."""
    for name in names:
        for product in PRODUCTS:
            if product.pattern.search(name):
                return product
    return None


def words_of(product: Product, *names: str) -> tuple[str, ...]:
    """Return what may stand before a version in a sentence about this product."""
    found = {match[0] for name in names if (match := product.pattern.search(name))}
    return (*found, *_AROUND)


def libraries_in(text: str) -> tuple[Product, ...]:
    """Return the libraries that a description names."""
    return tuple(p for p in PRODUCTS if p.kind is Kind.PACKAGE and p.pattern.search(text))


def only_tools(text: str) -> bool:
    """Return whether a description is about programs that never become a part of a kernel."""
    return bool(tools_in(text)) and not libraries_in(text) and MISCOMPILES.search(text) is None


def tools_in(text: str) -> tuple[str, ...]:
    """Return the programs that a description names, each once."""
    return tuple(sorted({found.lower() for found in TOOLS.findall(text)}))
