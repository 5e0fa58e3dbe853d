"""Cuts large payloads out of an ELF64 file, so that a reader that copies whole files stays small.

What goes are sections of a megabyte and more that the reader has no use for: device code, machine
code, constants, unwind and debug tables. Segments around a cut are split, so every remaining
address still maps to its bytes. Nothing that the dynamic section points at is cut, whatever the
section headers claim. Fields: System V gABI, chapters 4 and 5.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from kgate_scanner.elf import Elf, Section, Segment

WHOLE_BELOW: Final = 8 * 1024**2  # bytes; smaller files are not worth a cut
WHOLE_MOST: Final = 256 * 1024**2  # bytes of a copy; more is refused
_CUT_FROM: Final = 1024**2  # bytes in a section
_PAGE: Final = 4096  # bytes
_MAX_TAGS: Final = 4096  # dynamic entries; real ones have about forty

_EHDR: Final = struct.Struct("<16sHHIQQQIHHHHHH")
_PHDR: Final = struct.Struct("<IIQQQQQQ")
_SHDR: Final = struct.Struct("<IIQQQQIIQQ")
_DYN: Final = struct.Struct("<qQ")
_PT_LOAD, _PT_DYNAMIC, _PT_INTERP, _PT_NOTE = 1, 2, 3, 4
_SHT_PROGBITS, _SHT_SYMTAB, _SHT_STRTAB, _SHT_NOBITS, _SHT_UNWIND = 1, 2, 3, 8, 0x70000001
_SHF_ALLOC: Final = 2
_PN_XNUM: Final = 0xFFFF
_SHN_LORESERVE: Final = 0xFF00
_SHOFF_AT, _SHSTRNDX_AT = 40, 62  # places in the ELF header
_POINTERS: Final = frozenset(
    {4, 5, 6, 7, 17, 23, 25, 26, 32, 36, 0x6FFFFEF5, 0x6FFFFFF0, 0x6FFFFFFC, 0x6FFFFFFE}
)
"""Dynamic tags whose value is an address of a table: hashes, strings, symbols, relocations, arrays,
versions."""


class TooLargeError(Exception):
    """The file cannot be cut to a size that may be copied."""


def host_copy(elf: Elf) -> bytes:
    """Return the file, or an equivalent without its payloads; raises TooLargeError."""
    data = elf.data
    if len(data) < WHOLE_BELOW:
        return bytes(data)
    smaller = _cut(elf)
    if smaller is not None and len(smaller) <= WHOLE_MOST:
        return smaller
    if len(data) > WHOLE_MOST:
        raise TooLargeError
    return bytes(data)


def _cut(elf: Elf) -> bytes | None:
    cuts = _cuts(elf)
    pieces = [piece for segment in elf.segments for piece in _split(segment, cuts)]
    if not cuts or len(pieces) >= _PN_XNUM or len(elf.sections) >= _SHN_LORESERVE:
        return None
    body = bytearray()
    for start, end in _complement(cuts, len(elf.data)):
        body += elf.data[start:end]
    header = list(_EHDR.unpack_from(elf.data))
    header[5], header[10] = len(body), len(pieces)
    body += b"".join(_PHDR.pack(*piece) for piece in pieces)
    header[6], header[12] = len(body), len(elf.sections)
    body += b"".join(_headers(elf, cuts))
    body[: _EHDR.size] = _EHDR.pack(*header)
    return bytes(body)


def _headers(elf: Elf, cuts: Sequence[tuple[int, int]]) -> Iterator[bytes]:
    start = struct.unpack_from("<Q", elf.data, _SHOFF_AT)[0]
    for section in elf.sections:
        fields = list(_SHDR.unpack_from(elf.data, start + section.number * _SHDR.size))
        end = section.offset + section.size
        if any(left < end and section.offset < right for left, right in cuts):
            fields[1] = _SHT_NOBITS
        fields[4] = _moved(section.offset, cuts)
        yield _SHDR.pack(*fields)


def _cuts(elf: Elf) -> list[tuple[int, int]]:
    precious = [
        (segment.offset, segment.offset + segment.file_size)
        for segment in elf.segments
        if segment.type in {_PT_DYNAMIC, _PT_INTERP, _PT_NOTE}
    ]
    (names,) = struct.unpack_from("<H", elf.data, _SHSTRNDX_AT)
    points = [_EHDR.size - 1, *_tables(elf), *(s.offset for s in elf.sections[names : names + 1])]
    chosen = []
    for section in elf.sections:
        start, end = section.offset, section.offset + section.size
        if (
            _is_payload(section)
            and section.size >= _CUT_FROM
            and end <= len(elf.data)
            and not any(left < end and start < right for left, right in precious)
            and not any(start <= point < end for point in points)
        ):
            # By whole pages: notes and tables keep their alignment.
            chosen.append((-(-start // _PAGE) * _PAGE, end // _PAGE * _PAGE))
    return _merged(chosen)


def _is_payload(section: Section) -> bool:
    if section.type in {_SHT_SYMTAB, _SHT_STRTAB}:
        return not section.flags & _SHF_ALLOC  # of debuggers only, loaders never see it
    return section.type in {_SHT_PROGBITS, _SHT_UNWIND}


def _tables(elf: Elf) -> list[int]:
    found = []
    for dynamic in (segment for segment in elf.segments if segment.type == _PT_DYNAMIC):
        count = min(dynamic.file_size // _DYN.size, _MAX_TAGS)
        if dynamic.offset + count * _DYN.size > len(elf.data):
            continue
        for index in range(count):
            tag, value = _DYN.unpack_from(elf.data, dynamic.offset + index * _DYN.size)
            if tag in _POINTERS and (offset := elf.file_offset(value)) is not None:
                found.append(offset)
    return found


def _split(segment: Segment, cuts: Sequence[tuple[int, int]]) -> list[Segment]:
    start, end = segment.offset, segment.offset + segment.file_size
    inner = [cut for cut in cuts if start <= cut[0] and cut[1] <= end]
    if segment.type != _PT_LOAD or not inner:
        moved = _moved(start, cuts)
        return [segment._replace(offset=moved, file_size=_moved(end, cuts) - moved)]
    pieces = []
    for left, right in _complement(inner, end, start):
        shift = left - start
        pieces.append(
            segment._replace(
                offset=_moved(left, cuts),
                address=segment.address + shift,
                physical=segment.physical + shift,
                file_size=right - left,
                memory_size=segment.memory_size - shift if right == end else right - left,
            )
        )
    return pieces


def _moved(offset: int, cuts: Sequence[tuple[int, int]]) -> int:
    gone = sum(min(end, offset) - start for start, end in cuts if start < offset)
    return offset - gone


def _complement(cuts: Sequence[tuple[int, int]], end: int, start: int = 0) -> list[tuple[int, int]]:
    kept, at = [], start
    for left, right in cuts:
        if at < left:
            kept.append((at, left))
        at = right
    if at < end:
        kept.append((at, end))
    return kept


def _merged(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged
