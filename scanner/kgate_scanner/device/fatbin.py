"""Walks CUDA fatbins: containers back to back, in each the entries for several architectures.

The format is not published. The layout below was worked out from files of CUDA 11.8 to 13.2 and
checked against cuobjdump. All numbers are little-endian.

Container, 16 bytes: u32 magic, u16 version 1, u16 header size 16, u64 payload size.
Entry, 64 bytes and more: see `_ENTRY`; the header size is always taken from the header, options
and source name lie in its extension, the next entry starts where the stored payload ends.

It does not decompress and does not look into code.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from kgate_core.errors import InvalidInput
from kgate_scanner.device import rules
from kgate_scanner.device.extent import Payload, literal, nonzero_bytes
from kgate_scanner.device.images import Compression, ImageKind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kgate_scanner.device.extent import Extent
    from kgate_scanner.device.ledger import Ledger

MAGIC: Final = 0xBA55ED50
MAGIC_PATTERN: Final = literal(MAGIC.to_bytes(4, "little"))
_RELOCATABLE_SECTION: Final = "__nv_relfatbin"
SECTIONS: Final = frozenset({".nv_fatbin", _RELOCATABLE_SECTION})
_VERSION: Final = 1

CONTAINER: Final = struct.Struct("<IHHQ")
ENTRY: Final = struct.Struct("<HHIQIIHHIIIQQQ")
OPTIONS: Final = struct.Struct("<II")
_MAX_HEADER: Final = 64 * 1024  # bytes; compiler options make it longer
_ENTRY_VERSION: Final = 0x0101

DEBUG: Final = 0x2
LZ4: Final = 0x2000
ZSTD: Final = 0x8000
ENCODED: Final = 0x10000
"""LTO-IR that only NVIDIA's linker can decode; the key lies in the entry."""
SUFFIX_A: Final = 0x100000
SUFFIX_F: Final = 0x200000
BINARY_OPTIONS: Final = 0x1000000
_KNOWN_FLAGS: Final = 0x1 | DEBUG | 0x7C | LZ4 | ZSTD | ENCODED | SUFFIX_A | SUFFIX_F
_KNOWN: Final = _KNOWN_FLAGS | BINARY_OPTIONS

LTO: Final = 8
_KINDS: Final = {
    1: (ImageKind.PTX, "compute_"),
    2: (ImageKind.CUBIN, "sm_"),
    LTO: (ImageKind.LTO_IR, "lto_"),
}


class Entry(NamedTuple):
    """One entry header as stored."""

    kind: int
    version: int
    header_size: int
    stored_size: int
    """With padding to eight bytes."""
    compressed_size: int
    options_offset: int
    minor: int
    major: int
    arch: int
    name_offset: int
    name_size: int
    flags: int
    key: int
    size: int


def walk_fatbins(place: Extent, ledger: Ledger) -> Iterator[Payload]:
    """Yield the payloads of all containers in `place`; what lies between them is reported."""
    view, at = place.data, 0
    while at < len(view):
        start = place.find(MAGIC_PATTERN, at)
        ledger.unexplained(place, at, nonzero_bytes(view[at:start]))
        if start == len(view):
            return
        end = container_end(place, start, ledger)
        if end is None:
            if not ledger.may_retry(place.at(start)):
                return
            at = start + 4
            continue
        number = ledger.open_container(place, start, "fatbin")
        if number is None:
            return
        yield from _entries(place.part(start + CONTAINER.size, end), number, ledger)
        at = end


def container_end(place: Extent, start: int, ledger: Ledger) -> int | None:
    """Return where the container at `start` ends within `place`, None if there is no container."""
    if start + CONTAINER.size > len(place.data):
        ledger.report(rules.MALFORMED, "a fatbin ends within its header", place.at(start))
        return None
    _, version, header_size, size = CONTAINER.unpack_from(place.data, start)
    if (version, header_size) != (_VERSION, CONTAINER.size):
        seen = f"a fatbin of version {version} with a header of {header_size} bytes"
        ledger.report(rules.UNKNOWN, seen, place.at(start))
        return None
    end: int = start + CONTAINER.size + size
    if end > len(place.data):
        room = len(place.data) - start - CONTAINER.size
        seen = f"a fatbin claims {size} bytes where {room} remain"
        ledger.report(rules.MALFORMED, seen, place.at(start))
        return len(place.data)
    return end


def is_container(view: memoryview) -> bool:
    """Say whether a container starts `view`, judged by its header and that of its first entry.

    Code that writes fatbins holds their magic too.
    """
    if len(view) < CONTAINER.size + ENTRY.size:
        return False
    _, version, header_size, size = CONTAINER.unpack_from(view, 0)
    first = Entry._make(ENTRY.unpack_from(view, CONTAINER.size))
    whole = first.version == _ENTRY_VERSION and _fits(first, len(view) - CONTAINER.size)
    return (version, header_size) == (_VERSION, CONTAINER.size) and size > 0 and whole


def _entries(body: Extent, container: int, ledger: Ledger) -> Iterator[Payload]:
    view, at, number = body.data, 0, 0
    while at < len(view):
        room = len(view) - at
        entry = Entry._make(ENTRY.unpack_from(view, at)) if room >= ENTRY.size else None
        if entry is None or not _fits(entry, room):
            if count := nonzero_bytes(view[at:]):
                seen = f"entry {number} of a fatbin does not fit the {room} bytes that remain"
                ledger.report(rules.MALFORMED, seen, body.at(at))
                ledger.unexplained(body, at, count)
            return
        start = at + entry.header_size
        header, stored = view[at:start], body.part(start, start + entry.stored_size)
        payload = _payload(entry, header, stored, (container, number), ledger)
        if payload is not None:
            yield payload
        elif not ledger.may_retry(body.at(at)):
            return
        at, number = start + entry.stored_size, number + 1


def _fits(entry: Entry, room: int) -> bool:
    whole = entry.header_size + entry.stored_size
    return ENTRY.size <= entry.header_size <= _MAX_HEADER and whole <= room


def _payload(
    entry: Entry, header: memoryview, stored: Extent, ids: tuple[int, int], ledger: Ledger
) -> Payload | None:
    kind, prefix = _KINDS.get(entry.kind, (ImageKind.UNKNOWN, f"kind-{entry.kind}_"))
    offset = stored.base
    if kind is ImageKind.UNKNOWN or entry.version != _ENTRY_VERSION:
        seen = f"a fatbin entry of kind {entry.kind}, version {entry.version:#x}"
        ledger.report(rules.UNKNOWN, seen, offset)
    strange = entry.flags & ~(_KNOWN if entry.kind == LTO else _KNOWN & ~ENCODED)
    if strange:
        seen = f"fatbin entry flags {strange:#x}"
        ledger.report(rules.UNKNOWN, seen, offset)
    try:
        compression, size, length = _storage(entry)
        options, lineinfo, unused = _extension(entry, header)
    except InvalidInput as exc:
        ledger.report(rules.MALFORMED, exc.message, offset)
        return None
    ledger.unexplained(stored, 0, unused)
    ledger.unexplained(stored, length, nonzero_bytes(stored.data[length:]))
    suffix = "a" if entry.flags & SUFFIX_A else "f" if entry.flags & SUFFIX_F else ""
    return Payload(
        kind=kind,
        target=f"{prefix}{entry.arch}{suffix}",
        container_format="fatbin",
        container=ids[0],
        entry=ids[1],
        place=stored.part(0, length),
        compression=compression,
        size=size,
        options=options,
        lineinfo=lineinfo,
        debug=bool(entry.flags & DEBUG),
        relocatable=stored.section == _RELOCATABLE_SECTION,
    )


def _storage(entry: Entry) -> tuple[Compression, int | None, int]:
    """Return compression, declared size and stored length without padding."""
    packed = entry.flags & (LZ4 | ZSTD)
    if _is_encoded(entry):
        length = min(entry.compressed_size or entry.stored_size, entry.stored_size)
        return Compression.NONE, None, length
    if packed == LZ4 | ZSTD:
        raise InvalidInput("a fatbin entry is marked as LZ4 and as zstd")
    if not packed:
        if entry.compressed_size:
            raise InvalidInput("a fatbin entry has a compressed size but no compression")
        return Compression.NONE, None, entry.stored_size
    if not 0 < entry.compressed_size <= entry.stored_size or not entry.size:
        seen = f"{entry.compressed_size} of {entry.stored_size} bytes for {entry.size}"
        raise InvalidInput(f"a fatbin entry has impossible sizes: {seen}")
    compression = Compression.LZ4 if packed == LZ4 else Compression.ZSTD
    return compression, entry.size, entry.compressed_size


def _is_encoded(entry: Entry) -> bool:
    # The flag means nothing elsewhere: it must not keep machine code from being read.
    return bool(entry.flags & ENCODED) and entry.kind == LTO


def _extension(entry: Entry, header: memoryview) -> tuple[str, str, int]:
    """Return options, source name, and how many bytes of the header neither of them explains."""
    rest = bytearray(header)
    rest[: ENTRY.size] = bytes(ENTRY.size)
    options = lineinfo = ""
    if entry.options_offset:
        described = _range(header, entry.options_offset, OPTIONS.size)
        offset, size = OPTIONS.unpack(header[described])
        content = _range(header, offset, size) if size else slice(0, 0)
        if size and not entry.flags & BINARY_OPTIONS:  # else compatibility attributes, not text
            options = _text(header[content])
            content = slice(offset, offset + len(options.encode()))
        rest[described] = bytes(OPTIONS.size)
        rest[content] = bytes(content.stop - content.start)
    if entry.name_size:
        content = _range(header, entry.name_offset, entry.name_size)
        lineinfo = _text(header[content])
        rest[content] = bytes(entry.name_size)
    return options.strip(), lineinfo, nonzero_bytes(memoryview(rest))


def _range(header: memoryview, offset: int, size: int) -> slice:
    if offset < ENTRY.size or offset + size > len(header):
        raise InvalidInput("options or source name of a fatbin entry lie outside its header")
    return slice(offset, offset + size)


def _text(view: memoryview) -> str:
    return bytes(view).split(b"\0", 1)[0].decode("utf-8", "replace")
