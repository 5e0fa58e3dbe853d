"""Files that show one thing to tools and another to the loader."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from kgate_scanner.dynamic import DT_NEEDED, DT_SONAME, check_views, read_dynamic
from kgate_scanner.elf import Elf
from tests.scankit import build_library

if TYPE_CHECKING:
    from collections.abc import Callable

SOURCE = 'int puts(const char *); int f(void) { return puts(""); }'
LIBRARY = build_library(SOURCE, "-Wl,-soname,libown.so.1")
DYNAMIC, LOAD = 2, 1
STRTAB, INIT = 5, 12


def views(data: bytes | bytearray) -> list[str]:
    elf = Elf(memoryview(bytes(data)))
    return list(check_views(elf, read_dynamic(elf), 1000))


def segment_at(data: bytes | bytearray, kind: int) -> int:
    """Return where the program header of the first such segment stands."""
    (table,) = struct.unpack_from("<Q", data, 32)
    (count,) = struct.unpack_from("<H", data, 56)
    for number in range(count):
        at = int(table) + 56 * number
        if struct.unpack_from("<I", data, at)[0] == kind:
            return at
    raise AssertionError(kind)


def entry_at(data: bytes | bytearray, tag: int) -> int:
    """Return where a dynamic entry stands."""
    (at,) = struct.unpack_from("<Q", data, segment_at(data, DYNAMIC) + 8)
    while struct.unpack_from("<q", data, at)[0] != tag:
        at += 16
    return int(at)


def test_an_ordinary_library_has_one_view() -> None:
    elf = Elf(memoryview(LIBRARY))
    dynamic = read_dynamic(elf)
    assert views(LIBRARY) == []
    assert dynamic.texts[DT_NEEDED] == ["libc.so.6"]
    assert dynamic.texts[DT_SONAME] == ["libown.so.1"]


def twice(data: bytearray) -> None:
    # DT_INIT becomes a second string table; the loader takes the last one.
    at = entry_at(data, STRTAB)
    (value,) = struct.unpack_from("<Q", data, at + 8)
    struct.pack_into("<qQ", data, entry_at(data, INIT), STRTAB, value + 1)


def two_arrays(data: bytearray) -> None:
    struct.pack_into("<I", data, segment_at(data, 0x6474E550), DYNAMIC)


def no_array(data: bytearray) -> None:
    struct.pack_into("<I", data, segment_at(data, DYNAMIC), 0)


def elsewhere(data: bytearray) -> None:
    at = segment_at(data, DYNAMIC)
    (address,) = struct.unpack_from("<Q", data, at + 16)
    struct.pack_into("<Q", data, at + 16, address + 16)


def endless(data: bytearray) -> None:
    start = struct.unpack_from("<Q", data, segment_at(data, DYNAMIC) + 8)[0]
    for at in range(start, len(data) - 16, 16):
        if struct.unpack_from("<q", data, at)[0] == 0:
            struct.pack_into("<q", data, at, 0x60000000)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (twice, "the dynamic tag 0x5 stands twice"),
        (two_arrays, "there are 2 dynamic segments"),
        (no_array, "there are no dynamic segments"),
        (elsewhere, "the dynamic segment is loaded from another place than it says"),
        (endless, "the dynamic array has no end"),
    ],
)
def test_a_second_view_is_found(change: Callable[[bytearray], None], said: str) -> None:
    data = bytearray(LIBRARY)
    change(data)
    assert any(said in seen for seen in views(data))


def test_many_needed_libraries_hide_none() -> None:
    # The last segment grows over a new array behind the file, with one name three hundred times.
    data = bytearray(LIBRARY)
    elf = Elf(memoryview(LIBRARY))
    last = max((s for s in elf.segments if s.type == LOAD), key=lambda s: s.address)
    header, at = segment_at(data, LOAD), len(data)
    while struct.unpack_from("<Q", data, header + 16)[0] != last.address:
        header += 56
    (name,) = struct.unpack_from("<Q", data, entry_at(data, DT_NEEDED) + 8)
    data += struct.pack("<qQ", DT_NEEDED, name) * 300
    data += struct.pack("<qQ", STRTAB, read_dynamic(elf).values[STRTAB]) + bytes(16)
    struct.pack_into("<QQ", data, header + 32, len(data) - last.offset, len(data) - last.offset)
    address = last.address + at - last.offset
    struct.pack_into("<QQ", data, segment_at(data, DYNAMIC) + 8, at, address)
    needed = read_dynamic(Elf(memoryview(bytes(data)))).texts[DT_NEEDED]
    assert needed == ["libc.so.6"] * 300
