"""Looks for device code where toolchains put none.

Every byte that the walk did not cover is searched for the magic numbers of device code. A hit
counts only if the header behind it makes sense: machine code is full of four-byte coincidences.
What is found is yielded like any other payload, and reported.

Searched are uncompressed magics only: encrypted or packed code has none. Cost: one regular
expression for each magic over windows that stay in the processor's cache; measured faster than one
alternation (by ten) and than bytes.find.
"""

from __future__ import annotations

import re
import struct
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from kgate_core.errors import InvalidInput
from kgate_scanner.device import bundle, fatbin, rules
from kgate_scanner.device.bundle import walk_bundles
from kgate_scanner.device.extent import Extent, Payload, literal
from kgate_scanner.device.fatbin import walk_fatbins
from kgate_scanner.device.images import ImageKind
from kgate_scanner.device.metallib import library_size
from kgate_scanner.device.spirv import module_size
from kgate_scanner.elf_records import CUDA_NOBITS, SHDR
from kgate_scanner.filekind import EM_AMDGPU, EM_CUDA, EM_INTELGT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kgate_scanner.device.ledger import Ledger
    from kgate_scanner.device.pages import Pages

_WINDOW: Final = 256 * 1024  # bytes
_OVERLAP: Final = 64  # bytes; longer than any magic
_ELF: Final = struct.Struct("<16sHHIQQQIHHHHHH")
_ONE_OR_TWO: Final = frozenset({1, 2})
_ELF_KINDS: Final = {
    EM_CUDA: ImageKind.CUBIN,
    EM_AMDGPU: ImageKind.HSACO,
    EM_INTELGT: ImageKind.ZEBIN,
}
_PTX: Final = re.compile(
    rb"\.version\s{1,8}[0-9]{1,2}\.[0-9]{1,2}\s[^\0]{0,512}?\.target\s{1,8}sm_[0-9]{2,3}"
)
_PTX_REACH: Final = 1024  # bytes
_TEXT_END: Final = re.compile(rb"[\0\x80-\xff]")
_SPIRV_VERSIONS: Final = frozenset(0x10000 + (minor << 8) for minor in range(16))
_MAX_SPIRV: Final = 4 * 1024**2  # bytes
_MIN_SPIRV: Final = 64  # bytes; the smallest module with an entry point is longer

_MAGICS: Final = (
    fatbin.MAGIC_PATTERN,
    literal(bundle.COMPRESSED),
    literal(bundle.PLAIN),
    literal(b"\x7fELF"),
    literal(b".version"),
    literal(b"\x03\x02\x23\x07\x00"),
    literal(b"MTLB"),
)


def find_hidden(
    place: Extent, pages: Pages, ledger: Ledger, section_at: Callable[[int], str]
) -> Iterator[Payload]:
    """Yield the payloads of device code in bytes that should hold none.

    `section_at` names the section at a file offset, empty if there is none.
    """
    done = 0  # bytes before this belong to something that was found
    for at in _candidates(place, pages):
        if at < done:
            continue
        if not ledger.may_probe(place.at(at)):
            return
        end, kind = _probe(place.data, at)
        if not end:
            continue
        part = replace(place.part(at, end), section=section_at(place.at(at)))
        where = f"section {part.section}" if part.section else "no section"
        ledger.report(rules.HIDDEN, f"{kind} of {end - at} bytes in {where}", part.base)
        if kind == "fatbin":
            yield from walk_fatbins(part, ledger)
        elif kind is ImageKind.BUNDLE:
            yield from walk_bundles(part, ledger)
        else:
            number = ledger.open_container(part, 0, "file")
            if number is None:
                return
            yield Payload(ImageKind(kind), "", "file", number, 0, part)
        done = end


def _candidates(place: Extent, pages: Pages) -> Iterator[int]:
    """Yield the places of all magics, ascending."""
    size = len(place.data)
    for start in range(0, size, _WINDOW):
        end = min(start + _WINDOW, size)
        window = place.data[start : min(end + _OVERLAP, size)]
        hits = {match.start() for magic in _MAGICS for match in magic.finditer(window)}
        yield from sorted(start + hit for hit in hits if start + hit < end)
        if place.mapped:
            pages.release(place.at(start), end - start)


def _probe(view: memoryview, at: int) -> tuple[int, str]:
    """Return end and kind of the device code at `at`, (0, "") if it is a coincidence."""
    first = view[at]
    rest = view[at:]
    if first == fatbin.MAGIC & 0xFF:
        return _fatbin_end(rest, at), "fatbin"
    if first == ord("C") or first == ord("_"):
        return _bundle_end(rest, at), ImageKind.BUNDLE
    if first == 0x7F:  # noqa: PLR2004  # the first byte of the ELF magic
        size, kind = elf_size(rest)
        return (at + size, kind) if size else (0, "")
    if first == ord("."):
        return _ptx_end(view, at), ImageKind.PTX
    if first == ord("M"):
        size = library_size(rest)
        return at + size if size else 0, ImageKind.METALLIB
    return _spirv_end(rest, at), ImageKind.SPIRV


def _fatbin_end(rest: memoryview, at: int) -> int:
    if not fatbin.is_container(rest):
        return 0
    size: int = fatbin.CONTAINER.size + fatbin.CONTAINER.unpack_from(rest, 0)[3]
    return at + min(size, len(rest))


def _bundle_end(rest: memoryview, at: int) -> int:
    try:
        size = bundle.bundle_size(rest)
    except InvalidInput:
        return 0
    return at + size


def elf_size(view: memoryview) -> tuple[int, str]:
    """Return size and kind of the device ELF at the start of `view`, (0, "") if it is none."""
    if len(view) < _ELF.size:
        return 0, ""
    fields = _ELF.unpack_from(view, 0)
    kind = _ELF_KINDS.get(fields[2])
    phoff, shoff, phentsize, phnum, shentsize, shnum = (fields[i] for i in (5, 6, 9, 10, 11, 12))
    # Host code compares with the magic too: class and encoding must be ones that exist.
    if kind is None or fields[0][4] not in _ONE_OR_TWO or fields[0][5] not in _ONE_OR_TWO:
        return 0, ""
    size = max(_ELF.size, phoff + phentsize * phnum, shoff + shentsize * shnum)
    if shentsize == SHDR.size and shoff + shentsize * shnum <= len(view):
        # In old cubins sections follow their headers; those with bytes have an offset that fits.
        rows = SHDR.iter_unpack(view[shoff : shoff + shentsize * shnum])
        ends = (row[4] + row[5] for row in rows if row[1] not in CUDA_NOBITS)
        size = max(size, *(end for end in ends if end <= len(view)), 0)
    return min(size, len(view)), kind


def _ptx_end(view: memoryview, at: int) -> int:
    if not _PTX.match(view[at : at + _PTX_REACH]):
        return 0
    stop = _TEXT_END.search(view, at)
    return stop.start() if stop else len(view)


def _spirv_end(rest: memoryview, at: int) -> int:
    if len(rest) < _MIN_SPIRV:
        return 0
    _, version, _, bound, schema = struct.unpack_from("<5I", rest, 0)
    if version not in _SPIRV_VERSIONS or not bound or schema:
        return 0
    size = module_size(rest, _MAX_SPIRV)
    return at + size if size >= _MIN_SPIRV else 0
