"""Names a file for what it is, by its first bytes.

It looks at magic numbers only: the file name says nothing, and nothing is parsed beyond the fixed
header fields. Whether a kind is acceptable is for a policy to say.
"""

from __future__ import annotations

import re
import struct
from enum import StrEnum, unique
from typing import Final

HEAD_BYTES: Final = 4096  # bytes that `identify` wants to see; fewer are fine

EM_INTELGT: Final = 205
EM_CUDA: Final = 190
EM_AMDGPU: Final = 224

_ET_REL: Final = 1
_ELF_FIXED: Final = 20  # bytes up to and including e_machine
_MACH_O_FAT_MAX: Final = 0x20  # architectures; a Java class file has its version (>= 45) there
_PTX: Final = re.compile(rb"(?:\s|//[^\n]*\n|/\*[^*]*\*/)*\.version[ \t]+[0-9]+\.[0-9]+\s")
_SCRIPT: Final = re.compile(rb"#![^\n]{1,255}")


@unique
class FileKind(StrEnum):
    """What a file is; the words appear in reports."""

    ELF = "elf"
    """ELF64 little-endian executable or shared object for a host processor."""
    ELF_OBJECT = "elf-object"
    """ELF64 little-endian relocatable file (ET_REL); an OS kernel module is one of these."""
    KERNEL_MODULE = "kernel-module"
    """Linux `.ko`; told from other relocatable files by its sections, see `Elf.kind`."""
    ELF_FOREIGN = "elf-foreign"
    """ELF32 or big-endian ELF: recognised, not read."""
    CUBIN = "cubin"
    HSACO = "hsaco"
    ZEBIN = "zebin"
    FATBIN = "fatbin"
    OFFLOAD_BUNDLE = "offload-bundle"
    COMPRESSED_BUNDLE = "compressed-offload-bundle"
    PTX = "ptx"
    SPIRV = "spirv"
    METALLIB = "metallib"
    ARCHIVE = "ar-archive"
    PE = "pe"
    MACH_O = "mach-o"
    BITCODE = "llvm-bitcode"
    WASM = "wasm"
    SCRIPT = "script"
    EMPTY = "empty"
    OTHER = "other"


_MAGICS: Final = (
    (b"\x50\xed\x55\xba", FileKind.FATBIN),
    (b"__CLANG_OFFLOAD_BUNDLE__", FileKind.OFFLOAD_BUNDLE),
    (b"CCOB", FileKind.COMPRESSED_BUNDLE),
    (b"\x03\x02\x23\x07", FileKind.SPIRV),
    (b"MTLB", FileKind.METALLIB),
    (b"!<arch>\n", FileKind.ARCHIVE),
    (b"!<thin>\n", FileKind.ARCHIVE),
    (b"MZ", FileKind.PE),
    (b"\xce\xfa\xed\xfe", FileKind.MACH_O),
    (b"\xcf\xfa\xed\xfe", FileKind.MACH_O),
    (b"\xfe\xed\xfa\xce", FileKind.MACH_O),
    (b"\xfe\xed\xfa\xcf", FileKind.MACH_O),
    (b"BC\xc0\xde", FileKind.BITCODE),
    (b"\xde\xc0\x17\x0b", FileKind.BITCODE),
    (b"\0asm", FileKind.WASM),
)
_MACHINES: Final = {
    EM_CUDA: FileKind.CUBIN,
    EM_AMDGPU: FileKind.HSACO,
    EM_INTELGT: FileKind.ZEBIN,
}


def identify(head: bytes) -> FileKind:
    """Return the kind of a file from its first `HEAD_BYTES` bytes; never raises."""
    if not head:
        return FileKind.EMPTY
    if head.startswith(b"\x7fELF"):
        return _identify_elf(head)
    for magic, kind in _MAGICS:
        if head.startswith(magic):
            return kind
    if head.startswith((b"\xca\xfe\xba\xbe", b"\xca\xfe\xba\xbf")):
        many = int.from_bytes(head[4:8], "big")
        return FileKind.MACH_O if 0 < many < _MACH_O_FAT_MAX else FileKind.OTHER
    if _SCRIPT.match(head):
        return FileKind.SCRIPT
    if _PTX.match(head[:HEAD_BYTES]):
        return FileKind.PTX
    return FileKind.OTHER


def _identify_elf(head: bytes) -> FileKind:
    if len(head) < _ELF_FIXED or head[4:6] != b"\x02\x01":
        return FileKind.ELF_FOREIGN
    kind, machine = struct.unpack_from("<HH", head, 16)
    if machine in _MACHINES:
        return _MACHINES[machine]
    return FileKind.ELF_OBJECT if kind == _ET_REL else FileKind.ELF
