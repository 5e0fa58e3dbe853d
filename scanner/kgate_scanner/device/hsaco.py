"""Reads AMD code objects: EM_AMDGPU ELF files with a metadata note.

Format: LLVM documentation, "User Guide for AMDGPU Backend", sections "Code Object" and "Code Object
Metadata". Taken out: target, kernels with their resources, toolchain. Instructions are not decoded.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import msgpack

from kgate_scanner.device.code import CodeObject, list_kernels
from kgate_scanner.device.gfx import target_id
from kgate_scanner.device.images import DeviceKernel, Tool
from kgate_scanner.elf import SHT_NOTE, Elf

if TYPE_CHECKING:
    from collections.abc import Iterator

NT_AMDGPU_METADATA: Final = 32
NOTE_OWNER: Final = "AMDGPU"
_MAX_METADATA: Final = 64 * 1024**2  # bytes
_MAX_ITEMS: Final = 32_768  # elements of one array or map in the metadata
_MAX_COMMENT: Final = 64 * 1024  # bytes of .comment that are read
_UINT32: Final = 0xFFFFFFFF
_TRIPLE_PARTS: Final = 4  # a target triple with its environment; processors have hyphens, too
_ROCM: Final = re.compile(r"\broc-([0-9]{1,3}\.[0-9]{1,3}(?:\.[0-9]{1,3})?)")
_FIELDS: Final = (
    ("vgpr", ".vgpr_count"),
    ("agpr", ".agpr_count"),
    ("sgpr", ".sgpr_count"),
    ("shared", ".group_segment_fixed_size"),
    ("scratch", ".private_segment_fixed_size"),
    ("params", ".kernarg_segment_size"),
    ("max_threads", ".max_flat_workgroup_size"),
    ("spills", ".vgpr_spill_count"),
    ("wavefront", ".wavefront_size"),
)


def read_hsaco(data: memoryview) -> CodeObject:
    """Return what an AMD code object says of itself; damage is listed, never raised."""
    elf = Elf(data)
    if elf.header is None:
        return CodeObject(damage=tuple(seen for seen, _ in elf.damage))
    damage: list[str] = []
    metadata = _metadata(elf, damage)
    target = target_id(elf.header.abi_version, elf.header.flags)
    if not target:
        damage.append(f"unknown AMD machine {elf.header.flags & 0xFF:#x}")
    said = metadata.get("amdhsa.target")
    if isinstance(said, str) and target and _processor(said) != target:
        damage.append(f"metadata names {said}, the header {target}")
    kernels = list_kernels(_kernels(metadata.get("amdhsa.kernels"), damage), damage)
    tools, toolkit = _toolchain(elf)
    names = {section.name for section in elf.sections}
    return CodeObject(
        target=target,
        toolkit=toolkit,
        tools=tools,
        has_lineinfo=".debug_line" in names,
        relocatable=elf.is_relocatable,
        kernels=kernels,
        damage=(*(seen for seen, _ in elf.damage), *damage),
    )


def _processor(said: str) -> str:
    """Return what follows architecture, vendor, system and environment; the last may be empty."""
    return said.split("-", _TRIPLE_PARTS)[-1]


def _metadata(elf: Elf, damage: list[str]) -> dict[str, Any]:
    for section in elf.sections:
        if section.type != SHT_NOTE:
            continue
        for note in elf.notes(section):
            if note.owner == NOTE_OWNER and note.type == NT_AMDGPU_METADATA:
                return _unpack(note.content, damage)
    if not elf.is_relocatable:
        damage.append("no metadata note")
    return {}


def _unpack(content: memoryview, damage: list[str]) -> dict[str, Any]:
    if len(content) > _MAX_METADATA:
        damage.append(f"metadata of {len(content)} bytes")
        return {}
    try:
        metadata = msgpack.unpackb(
            content,
            unicode_errors="replace",
            strict_map_key=False,
            max_array_len=_MAX_ITEMS,
            max_map_len=_MAX_ITEMS,
        )
    except (ValueError, TypeError, msgpack.UnpackException, OverflowError, MemoryError):
        damage.append("metadata is not MessagePack")
        return {}
    if not isinstance(metadata, dict):
        damage.append("metadata is not a map")
        return {}
    return metadata


def _kernels(listed: object, damage: list[str]) -> Iterator[DeviceKernel]:
    if listed is None:
        return
    if not isinstance(listed, list):
        damage.append("the kernels in the metadata are no list")
        return
    for item in listed:
        name = item.get(".name") if isinstance(item, dict) else None
        if not isinstance(name, str):
            damage.append("a kernel in the metadata has no name")
            return
        numbers = {}
        for field, key in _FIELDS:
            value = item.get(key)
            if type(value) is int and 0 <= value <= _UINT32:  # a bool is no number here
                numbers[field] = value
            elif value is not None:
                damage.append("a kernel in the metadata has an impossible number")
        yield DeviceKernel(name=name.encode("utf-8", "replace").decode(), **numbers)


def _toolchain(elf: Elf) -> tuple[tuple[Tool, ...], str]:
    """Read `.comment`: one string for each tool, kept in its own words."""
    sections = elf.named(".comment")
    if not sections:
        return (), ""
    text = bytes(elf.content(sections[0])[:_MAX_COMMENT]).decode("utf-8", "replace")
    tools = tuple(
        Tool("lld" if "LLD" in line else "clang" if "clang" in line else "other", line)
        for line in dict.fromkeys(part.strip() for part in text.split("\0"))
        if line
    )
    release = _ROCM.search(text)
    return tools, release.group(1) if release else ""
