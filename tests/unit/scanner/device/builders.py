"""Builds small device code files from scratch: ELF, cubins, fatbins, bundles, SYCL images.

Every layout is written here by hand, independently of the readers under test, so that a slip in a
reader does not cancel out.
"""

from __future__ import annotations

from tests.unit.scanner.device.cuda_builder import (
    Kernel,
    attribute,
    cubin,
    entry,
    fatbin,
    host,
    ptx,
    tool_note,
)
from tests.unit.scanner.device.elf_builder import (
    AARCH64,
    AMDGPU,
    BASE,
    CUDA,
    ET_DYN,
    ET_EXEC,
    ET_REL,
    INTELGT,
    NOBITS,
    NOTE,
    PROGBITS,
    RELA,
    STRTAB,
    SYMTAB,
    X86_64,
    ElfFile,
    Sec,
    note,
    symtab,
)
from tests.unit.scanner.device.offload_builder import (
    archive,
    bundle,
    ccob,
    hip_bundle,
    hsaco,
    spirv,
    sycl_host,
    zebin,
)

__all__ = [
    "AARCH64",
    "AMDGPU",
    "BASE",
    "CUDA",
    "ET_DYN",
    "ET_EXEC",
    "ET_REL",
    "INTELGT",
    "NOBITS",
    "NOTE",
    "PROGBITS",
    "RELA",
    "STRTAB",
    "SYMTAB",
    "X86_64",
    "ElfFile",
    "Kernel",
    "Sec",
    "archive",
    "attribute",
    "bundle",
    "ccob",
    "cubin",
    "entry",
    "fatbin",
    "hip_bundle",
    "host",
    "hsaco",
    "note",
    "ptx",
    "spirv",
    "sycl_host",
    "symtab",
    "tool_note",
    "zebin",
]
