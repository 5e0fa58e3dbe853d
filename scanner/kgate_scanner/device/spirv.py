"""Reads SPIR-V modules (Khronos SPIR-V specification, section 2.3, "Physical Layout").

Taken out: version and entry points. Instructions after the first function are not looked at.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from kgate_scanner.device.code import CodeObject, list_kernels
from kgate_scanner.device.images import DeviceKernel, Tool

if TYPE_CHECKING:
    from collections.abc import Iterator

MAGIC: Final = 0x07230203
HEADER: Final = struct.Struct("<5I")
_WORD: Final = struct.Struct("<I")
_OP_ENTRY_POINT: Final = 15
_OP_FUNCTION: Final = 54
_MAX_NAME: Final = 32 * 1024  # bytes
_MAX_INSTRUCTIONS: Final = 200_000  # before the first function


def read_spirv(data: memoryview) -> CodeObject:
    """Return what a SPIR-V module says of itself; damage is listed, never raised."""
    damage: list[str] = []
    if len(data) < HEADER.size or len(data) % _WORD.size:
        return CodeObject(damage=("a SPIR-V module of an impossible size",))
    magic, version, generator, _, _ = HEADER.unpack_from(data, 0)
    if magic != MAGIC:
        return CodeObject(damage=("the SPIR-V magic is missing",))
    said = f"SPIR-V {version >> 16 & 0xFF}.{version >> 8 & 0xFF}"
    tool = Tool(f"spirv-generator-{generator >> 16}", said)
    kernels = list_kernels(_kernels(data, damage), damage)
    return CodeObject(tools=(tool,), kernels=kernels, damage=tuple(damage))


def module_size(view: memoryview, most: int) -> int:
    """Return how many bytes from the start of `view`, up to `most`, read as one SPIR-V module."""
    at, end = HEADER.size, min(len(view), most)
    while at + _WORD.size <= end:
        (word,) = _WORD.unpack_from(view, at)
        words = word >> 16
        if not words or at + words * _WORD.size > end:
            break
        at += words * _WORD.size
    return min(at, end)


def _kernels(data: memoryview, damage: list[str]) -> Iterator[DeviceKernel]:
    at = HEADER.size
    for _ in range(_MAX_INSTRUCTIONS):
        if at == len(data):
            return
        (word,) = _WORD.unpack_from(data, at)
        operation, size = word & 0xFFFF, (word >> 16) * _WORD.size
        if operation == _OP_FUNCTION:
            return
        if not size or at + size > len(data):
            damage.append(f"a SPIR-V instruction of {size} bytes at {at}")
            return
        if operation == _OP_ENTRY_POINT:
            # word 0: operation, 1: execution model, 2: function, then the name
            text = bytes(data[at + 3 * _WORD.size : at + min(size, _MAX_NAME)])
            yield DeviceKernel(text.split(b"\0", 1)[0].decode("utf-8", "replace"))
        at += size
    damage.append(f"more than {_MAX_INSTRUCTIONS} SPIR-V instructions before the first function")
