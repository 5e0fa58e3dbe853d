"""Builds small device code files from scratch: ELF, cubins, fatbins, bundles, SYCL images.

Every layout is written here by hand, independently of the readers under test, so that a slip in a
reader does not cancel out.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from dataclasses import dataclass, field, replace

import lz4.block
import msgpack
import zstandard

BASE = 0x10000  # virtual address of file offset 0 in every file with segments
X86_64, AARCH64, CUDA, AMDGPU, INTELGT = 62, 183, 190, 224, 205
ET_REL, ET_EXEC, ET_DYN = 1, 2, 3
PROGBITS, SYMTAB, STRTAB, RELA, NOTE, NOBITS = 1, 2, 3, 4, 7, 8


@dataclass(frozen=True)
class Sec:
    name: str
    content: bytes = b""
    type: int = PROGBITS
    flags: int = 0
    link: int = 0
    info: int = 0
    align: int = 8
    entry_size: int = 0
    size: int | None = None  # for sections without bytes


@dataclass
class ElfFile:
    """Sections in order; `offsets` is filled by `build`."""

    machine: int = X86_64
    type: int = ET_DYN
    os_abi: int = 0
    abi_version: int = 0
    version: int = 1
    flags: int = 0
    sections: list[Sec] = field(default_factory=list)
    offsets: dict[str, int] = field(default_factory=dict)

    def build(self) -> bytes:
        sections = [*self.sections, Sec(".shstrtab", b"", STRTAB, align=1)]
        names = b"\0" + b"".join(s.name.encode() + b"\0" for s in sections)
        sections[-1] = replace(sections[-1], content=names)
        body = bytearray(64 + 56)
        headers = [bytes(64)]
        name_at = 1
        for section in sections:
            body += bytes(-len(body) % section.align)
            offset = len(body)
            self.offsets[section.name] = offset
            size = len(section.content) if section.size is None else section.size
            headers.append(
                struct.pack(
                    "<IIQQQQIIQQ",
                    name_at,
                    section.type,
                    section.flags,
                    BASE + offset,
                    offset,
                    size,
                    section.link,
                    section.info,
                    section.align,
                    section.entry_size,
                )
            )
            body += section.content
            name_at += len(section.name) + 1
        body += bytes(-len(body) % 8)
        shoff = len(body)
        ident = b"\x7fELF\x02\x01\x01" + bytes([self.os_abi, self.abi_version]) + bytes(7)
        body[:64] = struct.pack(
            "<16sHHIQQQIHHHHHH",
            ident,
            self.type,
            self.machine,
            self.version,
            0,
            64,
            shoff,
            self.flags,
            64,
            56,
            1,
            64,
            len(headers),
            len(headers) - 1,
        )
        body[64:120] = struct.pack("<IIQQQQQQ", 1, 5, 0, BASE, BASE, shoff, shoff, 4096)
        return bytes(body) + b"".join(headers)


def symtab(symbols: list[tuple[str, int, int, int]]) -> tuple[bytes, bytes]:
    """Return table and strings for (name, info, other, section)."""
    strings, table = b"\0", bytes(24)
    for name, info, other, section in symbols:
        table += struct.pack("<IBBHQQ", len(strings), info, other, section, 0, 128)
        strings += name.encode() + b"\0"
    return table, strings


def note(owner: bytes, kind: int, content: bytes) -> bytes:
    name = owner + b"\0"
    padded = name + bytes(-len(name) % 4)
    head = struct.pack("<III", len(name), len(content), kind)
    return head + padded + content + bytes(-len(content) % 4)


def attribute(number: int, content: bytes) -> bytes:
    return struct.pack("<BBH", 4, number, len(content)) + content


@dataclass(frozen=True)
class Kernel:
    name: str
    registers: int = 24
    stack: int = 8
    shared: int = 1024
    constant: int = 400
    params: int = 48
    threads: tuple[int, int, int] = (256, 1, 1)


def cubin(
    sm: int = 90,
    kernels: tuple[Kernel, ...] = (Kernel("scale"),),
    *,
    abi: int = 7,
    accelerated: bool = False,
    toolkit: int = 128,
    tool_args: str | None = None,
    debug: bool = False,
    kind: int = ET_EXEC,
) -> bytes:
    """Return a cubin whose kernels have the given resources."""
    if abi == 7:
        os_abi, version, flags = 0x33, toolkit, sm | sm << 16 | (0x800 if accelerated else 0)
    else:
        os_abi, version, flags = 0x41, 1, sm << 8 | (0x8 if accelerated else 0)
    sections = [Sec(".strtab"), Sec(".symtab")]
    symbols, general = [("helper", 0x02, 0, 3)], b""
    for number, kernel in enumerate(kernels, start=2):
        text = len(sections) + 1  # the number of the code section: what follows is linked to it
        symbols.append((kernel.name, 0x12, 0x10, text))
        general += attribute(0x2F, struct.pack("<II", number, kernel.registers))
        general += attribute(0x12, struct.pack("<II", number, kernel.stack))
        own = struct.pack("<BBH", 3, 0x19, kernel.params)
        own += attribute(0x05, struct.pack("<III", *kernel.threads))
        own += attribute(0x17, bytes(12))
        sections += [
            Sec(f".text.{kernel.name}", bytes(128), info=number, align=128),
            Sec(f".nv.info.{kernel.name}", own, 0x70000000, info=text, align=4),
            Sec(
                f".nv.constant0.{kernel.name}",
                bytes(kernel.constant),
                0x70000064,
                info=text,
                align=4,
            ),
            Sec(f".nv.shared.{kernel.name}", b"", 0x7000000A, info=text, size=kernel.shared),
        ]
    sections.append(Sec(".nv.info", general, 0x70000000, link=2, align=4))
    if tool_args is not None:
        sections.append(Sec(".note.nv.tkinfo", tool_note(tool_args), NOTE, align=4))
    if debug:
        sections.append(Sec(".debug_info", b"dwarf", align=1))
    table, strings = symtab(symbols)
    sections[0] = Sec(".strtab", strings, STRTAB, align=1)
    sections[1] = Sec(".symtab", table, SYMTAB, link=1, entry_size=24)
    return ElfFile(CUDA, kind, os_abi, abi, version, flags, sections).build()


def tool_note(args: str, release: str = "12.8") -> bytes:
    texts = ["", "ptxas", f"Cuda compilation tools, release {release}, V{release}.93", "b1", args]
    strings, offsets = b"", []
    for text in texts:
        offsets.append(len(strings))
        strings += text.encode() + b"\0"
    return note(b"NVIDIA Corp", 2000, struct.pack("<6I", 2, *offsets) + strings)


def ptx(target: str = "sm_90", names: tuple[str, ...] = ("scale",)) -> bytes:
    entries = "".join(f".visible .entry {name}(.param .u64 p)\n{{ ret; }}\n" for name in names)
    comment = "//\n// Cuda compilation tools, release 12.8, V12.8.93\n//\n"
    head = f"{comment}.version 8.7\n.target {target}\n.address_size 64\n"
    return (head + entries).encode() + b"\0"


def entry(
    payload: bytes,
    *,
    kind: int = 2,
    arch: int = 90,
    compression: str = "none",
    header_size: int | None = None,
    options: bytes = b"",
    source: bytes = b"",
    flags: int = 0x11,
    size: int | None = None,
) -> bytes:
    """Return one fatbin entry; a larger `header_size` pads its header."""
    stored, compressed = payload, 0
    if compression == "lz4":
        stored = lz4.block.compress(payload, store_size=False)
        compressed, flags = len(stored), flags | 0x2000
    elif compression == "zstd":
        stored = zstandard.ZstdCompressor().compress(payload)
        compressed, flags = len(stored), flags | 0x8000
    extension, options_at, source_at = b"", 0, 0
    if options:
        options_at = 64
        extension += struct.pack("<II", 72, len(options)) + options
    if source:
        source_at = 64 + len(extension)
        extension += source
    extension += bytes(-len(extension) % 8)
    header_size = max(header_size or 0, 64 + len(extension))
    extension += bytes(header_size - 64 - len(extension))
    stored += bytes(-len(stored) % 8)
    declared = size if size is not None else (len(payload) if compressed else 0)
    head = struct.pack(
        "<HHIQIIHHIIIQQQ",
        kind,
        0x0101,
        header_size,
        len(stored),
        compressed,
        options_at,
        7,
        1,
        arch,
        source_at,
        len(source),
        flags,
        0,
        declared,
    )
    return head + extension + stored


def fatbin(*entries: bytes) -> bytes:
    body = b"".join(entries)
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(body)) + body


def host(
    *containers: bytes,
    machine: int = X86_64,
    section: str = ".nv_fatbin",
    wrapped: tuple[int, ...] | None = None,
    relocated: bool = True,
    extra: tuple[Sec, ...] = (),
    type: int = ET_DYN,  # noqa: A002  # the ELF field is called so
) -> bytes:
    """Return a shared object with CUDA or HIP containers and a wrapper for each.

    `wrapped` chooses the containers that get one; `relocated` keeps the pointers in RELATIVE
    relocations, otherwise they stand in the wrappers themselves.
    """
    is_hip = section == ".hip_fatbin"
    align = 4096 if is_hip else 8
    starts, blob = [], b""
    for container in containers:
        blob += bytes(-len(blob) % align)
        starts.append(len(blob))
        blob += container
    chosen = range(len(containers)) if wrapped is None else wrapped
    name = ".hipFatBinSegment" if is_hip else ".nvFatBinSegment"
    magic = 0x48495046 if is_hip else 0x466243B1
    kind = {X86_64: 8, AARCH64: 1027}[machine]
    file = ElfFile(machine, type)
    pointers: list[int] = []
    for _ in range(2):  # the first pass only learns the offsets
        records = rela = b""
        for number, start in enumerate(pointers):
            records += struct.pack("<IIQQ", magic, 1, 0 if relocated else start, 0)
            place = BASE + file.offsets[name] + 24 * number + 8
            rela += struct.pack("<QIIq", place, kind, 0, start) if relocated else b""
        file.sections = [
            Sec(".rodata", b"host constants", align=16),
            Sec(section, blob, align=align),
            Sec(name, records or bytes(24 * len(chosen))),
            Sec(".rela.dyn", rela or bytes(24 * len(chosen)), RELA, entry_size=24),
            *extra,
        ]
        built = file.build()
        pointers = [BASE + file.offsets[section] + starts[number] for number in chosen]
    return built


def hsaco(
    mach: int = 0x3F,
    kernels: tuple[str, ...] = ("scale",),
    *,
    features: int = 0x500,
    target: str = "gfx90a",
    metadata: object = None,
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
        "amdhsa.target": f"amdgcn-amd-amdhsa--{target}",
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
