"""Lists the GPU device code in a file: what it is, for which architecture, with which kernels.

`scan_device` reads CUDA fatbins, AMD offload bundles and SYCL images inside ELF files, the same as
files of their own, and looks for device code where none should be. It never runs, loads or
disassembles anything, and it calls no vendor tool. It does not judge: see the rules for what its
findings mean.
"""

from __future__ import annotations

from bisect import bisect_right
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from kgate_scanner.device import bundle, fatbin, rules
from kgate_scanner.device.bundle import walk_bundles
from kgate_scanner.device.extent import Extent, Payload
from kgate_scanner.device.fatbin import walk_fatbins
from kgate_scanner.device.hidden import find_hidden
from kgate_scanner.device.images import (
    Compression,
    DeviceImage,
    DeviceKernel,
    DeviceScan,
    ImageKind,
    Tool,
)
from kgate_scanner.device.judgement import judge_images
from kgate_scanner.device.ledger import Ledger
from kgate_scanner.device.limits import DeviceLimits
from kgate_scanner.device.pages import Pages
from kgate_scanner.device.reading import Reader
from kgate_scanner.device.sycl import PREFIX, walk_sycl
from kgate_scanner.device.wrappers import check_wrappers
from kgate_scanner.elf import Elf, Section
from kgate_scanner.filekind import HEAD_BYTES, FileKind, identify

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "Compression",
    "DeviceImage",
    "DeviceKernel",
    "DeviceLimits",
    "DeviceScan",
    "ImageKind",
    "Tool",
    "scan_device",
]

DEFAULT_LIMITS: Final = DeviceLimits()
_MAX_SECTIONS: Final = 64  # with device code; the rest is searched like any other bytes
_WORKERS: Final = 2  # threads that expand and hash

_HOST_ELF: Final = frozenset({FileKind.ELF, FileKind.ELF_OBJECT})
_BARE: Final = {
    FileKind.CUBIN: ImageKind.CUBIN,
    FileKind.HSACO: ImageKind.HSACO,
    FileKind.ZEBIN: ImageKind.ZEBIN,
    FileKind.PTX: ImageKind.PTX,
    FileKind.SPIRV: ImageKind.SPIRV,
    FileKind.METALLIB: ImageKind.METALLIB,
}
_BUNDLES: Final = frozenset({FileKind.OFFLOAD_BUNDLE, FileKind.COMPRESSED_BUNDLE})


def scan_device(
    data: memoryview, path: str, *, limits: DeviceLimits = DEFAULT_LIMITS, workers: int = _WORKERS
) -> DeviceScan:
    """Return all device code in the bytes of one file; damage is a finding, never an exception.

    `data` should be a view of the whole of a read-only `mmap`: its pages are then given back as
    they are read. `path` is used for findings only.
    """
    ledger = Ledger(path, limits, len(data))
    whole = Extent(data, "", 0)
    with ThreadPoolExecutor(workers, thread_name_prefix="kgate-device") as pool:
        reader = Reader(data, pool, ledger)
        kind = identify(bytes(data[:HEAD_BYTES]))
        if kind in _HOST_ELF:
            elf = Elf(data)
            places = _device_places(elf, ledger)
            for place in places:
                reader.read(_walk_section(elf, place, ledger))
            check_wrappers(elf, ledger)
            reader.read(_search(elf, whole, places, ledger))
        elif kind in _BARE:
            number = ledger.open_container(whole, 0, "file")
            reader.read([Payload(_BARE[kind], "", "file", number or 0, 0, whole)])
        elif kind is FileKind.FATBIN:
            reader.read(walk_fatbins(whole, ledger))
        elif kind in _BUNDLES:
            reader.read(walk_bundles(whole, ledger))
        else:
            reader.read(find_hidden(whole, Pages(data), ledger, _no_section))
    judge_images(ledger)
    return ledger.close()


def _device_places(elf: Elf, ledger: Ledger) -> list[Extent]:
    """Return the known device sections in file order, without bytes that an earlier one holds."""
    places, at = [], 0
    for section in sorted(elf.sections, key=lambda section: section.offset):
        end = section.offset + len(elf.content(section))
        if _is_device_section(section) and end > at:
            start = max(at, section.offset)
            places.append(Extent(elf.data[start:end], section.name, start))
            at = end
    if len(places) > _MAX_SECTIONS:
        ledger.report(rules.LIMIT, f"{len(places)} device sections")
    return places[:_MAX_SECTIONS]


def _is_device_section(section: Section) -> bool:
    known = section.name in fatbin.SECTIONS or section.name in bundle.SECTIONS
    return known or section.name.startswith(PREFIX)


def _walk_section(elf: Elf, place: Extent, ledger: Ledger) -> Iterator[Payload]:
    if place.section in fatbin.SECTIONS:
        return walk_fatbins(place, ledger)
    if place.section in bundle.SECTIONS:
        return walk_bundles(place, ledger)
    return walk_sycl(place, elf, ledger)


def _search(elf: Elf, whole: Extent, places: list[Extent], ledger: Ledger) -> Iterator[Payload]:
    """Search the stretches before, between and after the known device sections."""
    pages, at, size = Pages(whole.data), 0, len(whole.data)
    held = sorted((section for section in elf.sections if len(elf.content(section))), key=_offset)
    starts = [section.offset for section in held]

    def section_at(offset: int) -> str:
        number = bisect_right(starts, offset) - 1
        section = held[number] if number >= 0 else None
        return section.name if section and offset < section.offset + section.size else ""

    known = [(place.base, place.base + len(place.data)) for place in places]
    for start, end in [*known, (size, size)]:
        yield from find_hidden(whole.part(at, start), pages, ledger, section_at)
        at = end


def _offset(section: Section) -> int:
    return section.offset


def _no_section(_: int) -> str:
    return ""
