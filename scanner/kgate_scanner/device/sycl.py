"""Walks the device images of SYCL programs and reads Intel's archives and binaries.

Clang's SYCL linker wrapper puts images, each usually one zstd frame, into sections named
`__CLANG_OFFLOAD_BUNDLE__sycl-<target>`; their addresses and decompressed sizes as pairs of u64 into
`.tgtimg`. An ahead-of-time image is an `ar` archive with one member for each
device. The layout was worked out from files of oneAPI 2025 and 2026.

It does not decode instructions.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from kgate_core.errors import InvalidInput
from kgate_scanner.device import rules
from kgate_scanner.device.code import CodeObject, list_kernels
from kgate_scanner.device.expansion import zstd_frame
from kgate_scanner.device.extent import Extent, Payload, literal, nonzero_bytes
from kgate_scanner.device.images import Compression, DeviceKernel, ImageKind
from kgate_scanner.device.spirv import read_spirv
from kgate_scanner.elf import Elf
from kgate_scanner.filekind import FileKind, identify

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kgate_scanner.device.ledger import Ledger
    from kgate_scanner.elf import Section

PREFIX: Final = "__CLANG_OFFLOAD_BUNDLE__sycl-"
_TABLE: Final = ".tgtimg"
_PAIR: Final = struct.Struct("<QQ")
_ZSTD: Final = literal(b"\x28\xb5\x2f\xfd")
_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_ARCHIVE: Final = b"!<arch>\n"
_MEMBER: Final = struct.Struct("16s12s6s6s8s10s2s")
_MEMBER_END: Final = b"`\n"
_MAX_MEMBERS: Final = 4096  # of one archive
_DECIMAL: Final = re.compile(rb"[0-9]{1,10} *")
_PADDING: Final = "pad_"
_MAX_PADDING: Final = 64  # bytes; a larger member of that name is no padding
_SPIRV_MAGIC: Final = b"\x03\x02\x23\x07"
_TEXT: Final = ".text."
_HELPERS: Final = frozenset({"Intel_Symbol_Table_Void_Program"})


class _Start(NamedTuple):
    """Where an image starts within its section, and its decompressed size if that is listed."""

    position: int
    size: int | None


def walk_sycl(place: Extent, elf: Elf, ledger: Ledger) -> Iterator[Payload]:
    """Yield the images of one SYCL section, by the table of images or, without one, by frames."""
    number = ledger.open_container(place, 0, "sycl")
    if number is None:
        return
    at = 0
    for entry, start in enumerate(_starts(place, elf, ledger)):
        if start.position < at:
            ledger.report(rules.MALFORMED, "two SYCL images share bytes", place.at(start.position))
            continue
        payload = _payload(place, start, (number, entry), ledger)
        ledger.unexplained(place, at, nonzero_bytes(place.data[at : start.position]))
        at = start.position
        if payload is not None:
            at += len(payload.place.data)
            yield payload
    ledger.unexplained(place, at, nonzero_bytes(place.data[at:]))


def walk_archive(archive: Payload, view: memoryview, ledger: Ledger) -> Iterator[Payload]:
    """Yield the device images of an `ar` archive that was an image itself."""
    place = archive.place
    inner = Extent(view, place.section, place.base, mapped=False)
    container = ledger.open_container(inner, 0, archive.container_format)
    if container is None:
        return
    at, entry = len(_ARCHIVE), 0
    for _ in range(_MAX_MEMBERS):
        if at + _MEMBER.size > len(view):
            break
        name, _, _, _, _, digits, end = _MEMBER.unpack_from(view, at)
        at += _MEMBER.size
        size = int(digits) if _DECIMAL.fullmatch(digits) else -1
        if end != _MEMBER_END or size < 0 or at + size > len(view):
            ledger.report(rules.MALFORMED, "a device archive has a damaged member", place.base)
            return
        target = name.decode("ascii", "replace").strip().rstrip("/")
        if not target.startswith(_PADDING) or size > _MAX_PADDING:
            member = inner.part(at, at + size)
            yield Payload(
                kind=content_kind(member.data),
                target=target,
                container_format=archive.container_format,
                container=container,
                entry=entry,
                place=member,
                compression=archive.compression,
                parent_size=len(archive.place.data),
            )
            entry += 1
        at += size + (size & 1)
    ledger.unexplained(inner, at, nonzero_bytes(view[at:]))


def read_zebin(data: memoryview) -> CodeObject:
    """Return the kernels of an Intel GPU binary: its `.text.<kernel>` sections."""
    elf = Elf(data)
    damage = [seen for seen, _ in elf.damage]
    kernels = list_kernels(
        (
            DeviceKernel(section.name[len(_TEXT) :])
            for section in elf.sections
            if section.name.startswith(_TEXT) and section.name[len(_TEXT) :] not in _HELPERS
        ),
        damage,
    )
    return CodeObject(kernels=kernels, damage=tuple(damage))


def read_intermediate(data: memoryview) -> CodeObject:
    """Return what a SPIR-V module says of itself, bare or in a section of an ELF file."""
    if bytes(data[:4]) == _SPIRV_MAGIC:
        return read_spirv(data)
    elf = Elf(data)
    for section in elf.sections:
        content = elf.content(section)
        if bytes(content[:4]) == _SPIRV_MAGIC:
            return read_spirv(content)
    return CodeObject(damage=("no SPIR-V module inside",))


def _payload(place: Extent, start: _Start, ids: tuple[int, int], ledger: Ledger) -> Payload | None:
    """Return the image that starts there; None, with a finding, if it does not fit."""
    view, size = place.data[start.position :], start.size
    compression, stored = Compression.NONE, size or 0
    if bytes(view[:4]) == _ZSTD_MAGIC:
        compression = Compression.ZSTD
        try:
            stored, declared = zstd_frame(view)
        except InvalidInput as exc:
            ledger.report(rules.MALFORMED, exc.message, place.at(start.position))
            return None
        size = declared if size is None else size
    if not 0 < stored <= len(view):
        seen = f"a SYCL image of {stored} bytes where {len(view)} remain"
        ledger.report(rules.MALFORMED, seen, place.at(start.position))
        return None
    part = place.part(start.position, start.position + stored)
    return Payload(
        kind=ImageKind.UNKNOWN if compression is Compression.ZSTD else content_kind(part.data),
        target=place.section.removeprefix(PREFIX),
        container_format="sycl",
        container=ids[0],
        entry=ids[1],
        place=part,
        compression=compression,
        size=size if compression is Compression.ZSTD else None,
    )


def content_kind(view: memoryview) -> ImageKind:
    """Return what a SYCL image is, told by its first bytes."""
    kind = identify(bytes(view[:64]))
    if kind is FileKind.ARCHIVE:
        return ImageKind.DEVICE_ARCHIVE
    if kind is FileKind.ZEBIN:
        return ImageKind.ZEBIN
    if kind is FileKind.SPIRV or (kind is FileKind.ELF and bytes(view[16:18]) == b"\x02\xff"):
        return ImageKind.SPIRV  # type 0xff02: Intel's wrapping of SPIR-V for later devices
    return ImageKind.UNKNOWN


def _starts(place: Extent, elf: Elf, ledger: Ledger) -> Iterator[_Start]:
    """Yield where images start, by `.tgtimg` if there is one, else by the magic of zstd."""
    table = next(iter(elf.named(_TABLE)), None)
    if table is not None and not elf.is_relocatable:
        yield from sorted(_listed(place, elf, table, ledger))
        return
    at = 0
    while (start := place.find(_ZSTD, at)) < len(place.data):
        yield _Start(start, None)
        try:
            at = start + zstd_frame(place.data[start:])[0]
        except InvalidInput:  # reported by whoever reads the image
            if not ledger.may_retry(place.at(start)):
                return
            at = start + len(_ZSTD_MAGIC)


def _listed(place: Extent, elf: Elf, table: Section, ledger: Ledger) -> Iterator[_Start]:
    content = elf.content(table)
    most = min(len(content) // _PAIR.size, ledger.limits.images)
    moved = elf.relative_relocations(table.address, table.address + most * _PAIR.size)
    for number in range(most):
        at = number * _PAIR.size
        address, size = _PAIR.unpack_from(content, at)
        start = elf.file_offset(moved.get(table.address + at, address))
        if start is None:
            seen = f"image {number} of .tgtimg lies outside the file"
            ledger.report(rules.WRAPPER, seen, table.offset + at)
        elif place.base <= start < place.base + len(place.data):
            yield _Start(start - place.base, size)
