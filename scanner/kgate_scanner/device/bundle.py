"""Walks Clang offload bundles, plain and compressed.

Format: LLVM documentation, "Clang Offload Bundler", sections "Bundled Binary File Layout" and
"Compression and Decompression". Plain: 24 bytes of magic, u64 count, then for each entry u64
offset, u64 size, u64 length of the id, id. Compressed (`CCOB`): u16 version, u16 method, then
version 1: u32 size, u64 checksum; version 2: u32 stored total, u32 size, u64 checksum;
version 3: the same with u64 sizes. The checksum is the first half of the MD5 of the contents.

It does not decompress and does not look into code.
"""

from __future__ import annotations

import re
import struct
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

from kgate_core.errors import InvalidInput
from kgate_scanner.device import rules
from kgate_scanner.device.expansion import zstd_frame
from kgate_scanner.device.extent import Extent, Payload, nonzero_bytes
from kgate_scanner.device.images import Compression, ImageKind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kgate_scanner.device.ledger import Ledger

PLAIN: Final = b"__CLANG_OFFLOAD_BUNDLE__"
COMPRESSED: Final = b"CCOB"
MAGIC_PATTERN: Final = re.compile(re.escape(PLAIN) + b"|" + COMPRESSED)
SECTIONS: Final = frozenset({".hip_fatbin"})

MAX_ENTRIES: Final = 1024  # of one bundle; compilers write one for each target
_MAX_ID: Final = 1024  # bytes
_COUNT: Final = struct.Struct("<Q")
_ENTRY: Final = struct.Struct("<QQQ")
_CCOB: Final = struct.Struct("<4sHH")
_LAYOUTS: Final = {1: struct.Struct("<IQ"), 2: struct.Struct("<IIQ"), 3: struct.Struct("<QQQ")}
_METHODS: Final = {0: Compression.ZLIB, 1: Compression.ZSTD}
_AMD_TARGET: Final = re.compile(r"amdgcn-amd-amdhsa-{1,2}(gfx[0-9a-z:+-]+)")
_KINDS: Final = (("amdgcn", ImageKind.HSACO), ("spir", ImageKind.SPIRV), ("nvptx", ImageKind.CUBIN))


class Member(NamedTuple):
    """One entry of a plain bundle."""

    offset: int
    size: int
    id: str
    id_size: int
    """Bytes of the id as stored."""


def walk_bundles(place: Extent, ledger: Ledger) -> Iterator[Payload]:
    """Yield images of plain bundles and whole compressed bundles; gaps are reported."""
    view, at = place.data, 0
    while at < len(view):
        start = place.find(MAGIC_PATTERN, at)
        ledger.unexplained(place, at, nonzero_bytes(view[at:start]))
        if start == len(view):
            return
        is_plain = view[start] == PLAIN[0]
        try:
            if is_plain:
                members, end = read_members(view[start:])
            else:
                payload, end = _compressed(place, start)
        except InvalidInput as exc:
            ledger.report(rules.MALFORMED, exc.message, place.at(start))
            if not ledger.may_retry(place.at(start)):
                return
            at = start + 4
            continue
        container_format = "bundle" if is_plain else payload.container_format
        number = ledger.open_container(place, start, container_format)
        if number is None:
            return
        if is_plain:
            body = place.part(start, start + end)
            first = Payload(ImageKind.BUNDLE, "", "bundle", number, 0, body)
            yield from walk_members(first, members, ledger)
        else:
            yield replace(payload, container=number)
        at = start + end


def walk_members(bundle: Payload, members: tuple[Member, ...], ledger: Ledger) -> Iterator[Payload]:
    """Yield the images of one plain bundle whose bytes are those of `bundle`."""
    place = bundle.place
    at = _table_end(members)
    for member in sorted(members):
        if member.size:
            ledger.unexplained(place, at, nonzero_bytes(place.data[at : member.offset]))
            at = member.offset + member.size
    for number, member in enumerate(members):
        if member.id.startswith("host-") and not member.size:
            continue
        found = _AMD_TARGET.search(member.id)
        kind = next((kind for word, kind in _KINDS if word in member.id), ImageKind.UNKNOWN)
        if kind is ImageKind.UNKNOWN:
            seen = f"a bundle entry with the id {member.id!r}"
            ledger.report(rules.UNKNOWN, seen, place.at(member.offset))
        yield replace(
            bundle,
            kind=kind,
            target=found.group(1) if found else member.id,
            entry=number,
            place=place.part(member.offset, member.offset + member.size),
            checksum=None,
            size=None,
        )


def _table_end(members: tuple[Member, ...]) -> int:
    rows = sum(_ENTRY.size + member.id_size for member in members)
    return len(PLAIN) + _COUNT.size + rows


def read_members(view: memoryview) -> tuple[tuple[Member, ...], int]:
    """Return the entries of the plain bundle at the start of `view`, and its length.

    Raises InvalidInput if they leave the view or share bytes.
    """
    at = len(PLAIN) + _COUNT.size
    if len(view) < at or bytes(view[: len(PLAIN)]) != PLAIN:
        raise InvalidInput("an offload bundle ends within its header")
    (count,) = _COUNT.unpack_from(view, len(PLAIN))
    if count > MAX_ENTRIES:
        raise InvalidInput(f"an offload bundle claims {count} entries")
    members = []
    for _ in range(count):
        if at + _ENTRY.size > len(view):
            raise InvalidInput("an offload bundle ends within its table")
        offset, size, length = _ENTRY.unpack_from(view, at)
        at += _ENTRY.size
        if length > _MAX_ID or at + length > len(view):
            raise InvalidInput(f"an offload bundle has an id of {length} bytes")
        if offset + size > len(view):
            raise InvalidInput(f"a bundle entry ends at {offset + size} of {len(view)} bytes")
        name = bytes(view[at : at + length]).decode("utf-8", "replace")
        members.append(Member(offset, size, name, length))
        at += length
    end = at
    for member in sorted(members):
        if member.size:
            if member.offset < end:
                raise InvalidInput(f"bundle entry {member.id!r} shares bytes with what precedes it")
            end = member.offset + member.size
    return tuple(members), end


def bundle_size(view: memoryview) -> int:
    """Return the size of the bundle, plain or compressed, at the start of `view`.

    Raises InvalidInput if there is none.
    """
    if bytes(view[:1]) == PLAIN[:1]:
        members, end = read_members(view)
        if not any("-" in member.id for member in members):
            raise InvalidInput("an offload bundle without a target")
        return end
    return _compressed(Extent(view, "", 0), 0)[1]


def _compressed(place: Extent, start: int) -> tuple[Payload, int]:
    """Return the compressed bundle at `start` as a payload, and its length with the header."""
    view = place.data[start:]
    if len(view) < _CCOB.size:
        raise InvalidInput("a compressed bundle ends within its header")
    _, version, method = _CCOB.unpack_from(view, 0)
    layout, compression = _LAYOUTS.get(version), _METHODS.get(method)
    if layout is None or compression is None:
        raise InvalidInput(f"a compressed bundle of version {version}, method {method}")
    header = _CCOB.size + layout.size
    if len(view) < header:
        raise InvalidInput("a compressed bundle ends within its header")
    *total, size, checksum = layout.unpack_from(view, _CCOB.size)
    end = total[0] if total else _first_version_end(view, header, compression)
    if not header < end <= len(view):
        raise InvalidInput(f"a compressed bundle claims {end} bytes where {len(view)} remain")
    payload = Payload(
        kind=ImageKind.BUNDLE,
        target="",
        container_format=f"ccob-v{version}",
        container=0,
        entry=0,
        place=place.part(start + header, start + end),
        compression=compression,
        size=size,
        checksum=checksum,
    )
    return payload, end


def _first_version_end(view: memoryview, header: int, compression: Compression) -> int:
    """Return the end of a version 1 bundle, whose header does not say it."""
    if compression is Compression.ZSTD:
        return header + zstd_frame(view[header:])[0]
    following = MAGIC_PATTERN.search(view, header)  # a zlib stream ends by itself before that
    return following.start() if following else len(view)
