"""Builds small ELF files from scratch."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, replace

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
