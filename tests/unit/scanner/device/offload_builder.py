"""Builds small AMD code objects, offload bundles and SYCL images."""

from __future__ import annotations

import hashlib
import struct
import zlib

import msgpack
import zstandard

from tests.unit.scanner.device.elf_builder import (
    AMDGPU,
    BASE,
    ET_DYN,
    ET_REL,
    INTELGT,
    NOTE,
    ElfFile,
    Sec,
    note,
)


def hsaco(
    mach: int = 0x3F,
    kernels: tuple[str, ...] = ("scale",),
    *,
    features: int = 0x500,
    target: str = "gfx90a",
    metadata: object = None,
    triple: str = "",
) -> bytes:
    """Return an AMD code object of ABI V5 with its metadata note."""
    listed = [
        {
            ".name": name,
            ".vgpr_count": 32,
            ".agpr_count": 4,
            ".sgpr_count": 20,
            ".group_segment_fixed_size": 512,
            ".private_segment_fixed_size": 16,
            ".kernarg_segment_size": 48,
            ".max_flat_workgroup_size": 1024,
            ".vgpr_spill_count": 0,
            ".wavefront_size": 64,
        }
        for name in kernels
    ]
    document = metadata or {
        "amdhsa.target": triple or f"amdgcn-amd-amdhsa--{target}",
        "amdhsa.version": [1, 2],
        "amdhsa.kernels": listed,
    }
    sections = [
        Sec(".note", note(b"AMDGPU", 32, msgpack.packb(document)), NOTE, align=4),
        Sec(".text", bytes(64), align=256),
        Sec(".comment", b"AMD clang version 20.0 (https://x roc-7.1.1 25444 abc)\0", align=1),
    ]
    return ElfFile(AMDGPU, ET_DYN, 0x40, 3, 1, mach | features, sections).build()


def bundle(*members: tuple[str, bytes], align: int = 4096) -> bytes:
    """Return a plain offload bundle; the ids come with their images."""
    table = sum(24 + len(name.encode()) for name, _ in members)
    head = b"__CLANG_OFFLOAD_BUNDLE__" + struct.pack("<Q", len(members))
    at, body = len(head) + table, b""
    for name, content in members:
        pad = -(at + len(body)) % align
        body += bytes(pad)
        encoded = name.encode()
        head += struct.pack("<QQQ", at + len(body), len(content), len(encoded)) + encoded
        body += content
    return head + body


def hip_bundle(*targets: tuple[str, bytes]) -> bytes:
    images = ((f"hipv4-amdgcn-amd-amdhsa--{target}", image) for target, image in targets)
    return bundle(("host-x86_64-unknown-linux-gnu-", b""), *images)


def ccob(content: bytes, *, version: int = 3, method: str = "zstd", damage: int = 0) -> bytes:
    """Return a compressed bundle; `damage` is xored into its checksum."""
    packed = zstandard.ZstdCompressor().compress(content) if method == "zstd" else b""
    packed = packed or zlib.compress(content)
    checksum = int.from_bytes(hashlib.md5(content).digest()[:8], "little") ^ damage
    head = struct.pack("<4sHH", b"CCOB", version, 1 if method == "zstd" else 0)
    if version == 1:
        return head + struct.pack("<IQ", len(content), checksum) + packed
    layout = struct.Struct("<IIQ" if version == 2 else "<QQQ")
    total = len(head) + layout.size + len(packed)
    return head + layout.pack(total, len(content), checksum) + packed


def spirv(*names: str) -> bytes:
    words = struct.pack("<5I", 0x07230203, 0x00010400, 6 << 16 | 14, 64, 0)
    words += struct.pack("<II", 2 << 16 | 17, 4)  # OpCapability Addresses
    for name in names:
        text = name.encode() + b"\0"
        text += bytes(-len(text) % 4)
        words += struct.pack("<III", (3 + len(text) // 4) << 16 | 15, 6, 1) + text
    words += struct.pack("<IIIII", 5 << 16 | 54, 2, 1, 0, 3)  # OpFunction
    return words + struct.pack("<I", 1 << 16 | 56)  # OpFunctionEnd


def zebin(*names: str) -> bytes:
    sections = [Sec(f".text.{name}", bytes(64)) for name in names]
    return ElfFile(INTELGT, ET_REL, sections=sections).build()


def archive(*members: tuple[str, bytes]) -> bytes:
    out = b"!<arch>\n"
    for name, content in members:
        field_ = f"{name}/".ljust(16) + "0".ljust(12) + "0".ljust(6) + "0".ljust(6)
        field_ += "644".ljust(8) + str(len(content)).ljust(10) + "`\n"
        out += field_.encode() + content + b"\n" * (len(content) & 1)
    return out


def sycl_host(target: str, *images: bytes, packed: bool = True, listed: bool = True) -> bytes:
    """Return a shared object with one SYCL section and, if wanted, its table of images."""
    section = f"__CLANG_OFFLOAD_BUNDLE__sycl-{target}"
    starts, blob = [], b""
    for image in images:
        blob += bytes(-len(blob) % 16)
        starts.append(len(blob))
        blob += zstandard.ZstdCompressor().compress(image) if packed else image
    file = ElfFile()
    table = b""
    for _ in range(2):
        file.sections = [Sec(section, blob, align=16)]
        if listed:
            file.sections.append(Sec(".tgtimg", table or bytes(16 * len(images)), align=16))
        built = file.build()
        base = BASE + file.offsets[section]
        pairs = zip(starts, images, strict=True)
        table = b"".join(struct.pack("<QQ", base + start, len(image)) for start, image in pairs)
    return built
