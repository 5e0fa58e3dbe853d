from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from kgate_client import closure
from kgate_client.closure import Library, check_closure, mapped_files, read_library
from kgate_core.errors import InvalidInput
from tests.trustkit import manifest_of

if TYPE_CHECKING:
    from pathlib import Path


def elf(
    *, soname: str = "", needed: tuple[str, ...] = (), runpath: str = "", rpath: str = ""
) -> bytes:
    """Return the smallest library that says this: header, two segments, entries, strings."""
    strings = b"\0"
    entries: list[tuple[int, int]] = []
    texts = [(14, soname), (29, runpath), (15, rpath), *((1, name) for name in needed)]
    for tag, text in texts:
        if text:
            entries.append((tag, len(strings)))
            strings += text.encode() + b"\0"
    start = 64 + 2 * 56
    size = (len(entries) + 2) * 16
    entries += [(5, 0x1000 + start + size), (0, 0)]
    total = start + size + len(strings)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 3, 62, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0
    )
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, 0x1000, 0x1000, total, total, 0x1000)
    dynamic = struct.pack("<IIQQQQQQ", 2, 6, start, 0x1000 + start, 0, size, size, 8)
    return header + load + dynamic + b"".join(struct.pack("<qQ", *e) for e in entries) + strings


def test_names_and_places_are_read() -> None:
    data = elf(soname="liba.so", needed=("libb.so", "libc.so.6"), runpath="$ORIGIN:/opt")

    assert read_library("liba.so", data) == Library(
        "liba.so", "liba.so", ("libb.so", "libc.so.6"), ("$ORIGIN", "/opt")
    )
    old = read_library("liba.so", elf(rpath="/old"))
    assert old is not None
    assert old.search == ("/old",)


def test_other_files_are_no_libraries_and_broken_ones_are_named() -> None:
    assert read_library("x.so", b"import os") is None
    for cut in (20, 100, 180, 220):
        with pytest.raises(InvalidInput, match="not a well-formed library"):
            read_library("x.so", elf(soname="liba.so", needed=("libb.so",))[:cut])


def test_a_library_without_dynamic_entries_needs_nothing() -> None:
    data = bytearray(elf())
    struct.pack_into("<H", data, 56, 1)

    assert read_library("x.so", bytes(data)) == Library("x.so", "", (), ())


def test_strings_outside_of_the_file_are_refused() -> None:
    data = bytearray(elf(needed=("libb.so",)))
    struct.pack_into("<Q", data, 64 + 16, 0x9000)

    with pytest.raises(InvalidInput, match="string table lies outside"):
        read_library("x.so", bytes(data))


@pytest.fixture
def variant(tmp_path: Path) -> dict[str, bytes]:
    files = {
        "a.so": elf(needed=("libb.so", "libc.so.6"), runpath="$ORIGIN/lib"),
        "lib/libb.so": elf(soname="libb.so", runpath="${ORIGIN}/.."),
        "notes.so.txt": b"not a library",
        "empty.so": b"",
    }
    for path, data in files.items():
        (tmp_path / "v" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "v" / path).write_bytes(data)
    return files


def _check(
    tmp_path: Path,
    files: dict[str, bytes],
    library_path: str = "",
    mapped: tuple[str, ...] = (),
) -> str:
    return check_closure(
        tmp_path / "v", manifest_of(files), library_path=library_path, mapped=mapped
    )


def test_a_closed_variant_passes(tmp_path: Path, variant: dict[str, bytes]) -> None:
    assert _check(tmp_path, variant, "/usr/lib::", ("/usr/lib/libc.so.6", "/x/liba.so")) == ""


def test_what_would_be_taken_from_elsewhere_is_named(
    tmp_path: Path, variant: dict[str, bytes]
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "libb.so").write_bytes(b"")

    assert "is loaded already, from /evil/libb.so" in _check(
        tmp_path, variant, mapped=("/evil/libb.so",)
    )
    assert "would be taken from LD_LIBRARY_PATH" in _check(tmp_path, variant, f"/x:{elsewhere}")


@pytest.mark.parametrize(
    ("runpath", "said"),
    [
        ("$ORIGIN/..", "outside of the variant"),
        ("$ORIGIN/lib/../..", "outside of the variant"),
        ("ELSEWHERE", "would take libz.so from"),
        ("/nowhere", ""),
        ("$ORIGIN/lib/..", ""),
    ],
)
def test_a_search_path_may_not_leave_the_variant(tmp_path: Path, runpath: str, said: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "libz.so").write_bytes(b"")
    files = {"a.so": elf(needed=("libz.so",), runpath=runpath.replace("ELSEWHERE", str(elsewhere)))}
    (tmp_path / "v").mkdir()
    (tmp_path / "v/a.so").write_bytes(files["a.so"])

    found = _check(tmp_path, files)

    assert said in found
    assert bool(found) == bool(said)


def test_this_process_has_libraries_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert any("libc.so" in path for path in mapped_files())
    monkeypatch.setattr(closure, "MAPS", tmp_path / "none")
    assert mapped_files() == ()
