"""Builds small cubins, PTX texts, fatbins and the host files that hold them."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import lz4.block
import zstandard

from tests.unit.scanner.device.elf_builder import (
    AARCH64,
    BASE,
    CUDA,
    ET_DYN,
    ET_EXEC,
    NOTE,
    RELA,
    STRTAB,
    SYMTAB,
    X86_64,
    ElfFile,
    Sec,
    note,
    symtab,
)


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
