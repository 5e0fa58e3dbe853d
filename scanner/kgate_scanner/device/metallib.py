"""Reads Apple Metal libraries: their size and the names of their functions.

The format is not published; what is used here is what libraries show: u32 magic, 12 bytes of
platform and versions, u64 size of the file, then place and size of the list of functions. The list
is a count and for each function a record of u32 length and tagged values (`NAME`, `TYPE`, ... up to
`ENDT`). Code is not decoded.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from kgate_core.errors import InvalidInput
from kgate_scanner.device.code import CodeObject, list_kernels
from kgate_scanner.device.images import DeviceKernel

if TYPE_CHECKING:
    from collections.abc import Iterator

MAGIC: Final = b"MTLB"
_HEADER: Final = struct.Struct("<4s12sQQQ")
_COUNT: Final = struct.Struct("<I")
_TAG: Final = struct.Struct("<4sH")
_SMALLEST: Final = 88  # bytes of a header with its four table positions
_KERNEL: Final = b"\x02"  # of TYPE; 0 and 1 are stages of drawing, 3 and more are called by others


def library_size(view: memoryview) -> int:
    """Return the size of the library at the start of `view`, 0 if there is none that fits."""
    if len(view) < _SMALLEST:
        return 0
    magic, _, size, _, _ = _HEADER.unpack_from(view, 0)
    return size if magic == MAGIC and _SMALLEST <= size <= len(view) else 0


def read_metallib(data: memoryview) -> CodeObject:
    """Return the compute kernels of a library; damage is listed, never raised."""
    if len(data) < _SMALLEST:
        return CodeObject(damage=("a Metal library is cut off",))
    _, _, _, start, _ = _HEADER.unpack_from(data, 0)
    damage: list[str] = []
    try:
        kernels = list_kernels(_kernels(data, start), damage)
    except (struct.error, InvalidInput):
        return CodeObject(damage=("the list of functions of a Metal library does not fit",))
    return CodeObject(kernels=kernels, damage=tuple(damage))


def _kernels(data: memoryview, start: int) -> Iterator[DeviceKernel]:
    if not start:
        return
    if start > len(data):
        raise InvalidInput("the list lies outside the library")
    (count,) = _COUNT.unpack_from(data, start)
    at = start + _COUNT.size
    for _ in range(count):
        (length,) = _COUNT.unpack_from(data, at)
        if length < _COUNT.size or at + length > len(data):
            raise InvalidInput("a record is longer than the library")
        values = _values(data[at + _COUNT.size : at + length])
        if values.get(b"TYPE") == _KERNEL:
            name = values.get(b"NAME", b"").rstrip(b"\0")
            yield DeviceKernel(name=name.decode("utf-8", "replace"))
        at += length


def _values(record: memoryview) -> dict[bytes, bytes]:
    values: dict[bytes, bytes] = {}
    at = 0
    while at + _TAG.size <= len(record):
        tag, size = _TAG.unpack_from(record, at)
        if tag == b"ENDT":
            break
        at += _TAG.size
        values[tag] = bytes(record[at : at + size])
        at += size
    return values
