"""Decompression with a cap: exact sizes, no guessing, other libraries' errors translated."""

from __future__ import annotations

import zlib

import lz4.block
import pytest
import zstandard

from kgate_core.errors import InvalidInput
from kgate_scanner.device.expansion import expand_lz4, expand_zlib, expand_zstd, zstd_frame

TEXT = b"all the device code of the file " * 200
LZ4 = lz4.block.compress(TEXT, store_size=False)
ZSTD = zstandard.ZstdCompressor().compress(TEXT)
STREAMED = zstandard.ZstdCompressor(write_content_size=False, write_checksum=True).compress(TEXT)
ZLIB = zlib.compress(TEXT)


def test_each_method_returns_the_contents() -> None:
    assert expand_lz4(memoryview(LZ4), len(TEXT)) == TEXT
    assert expand_zlib(memoryview(ZLIB + bytes(7)), len(TEXT)) == TEXT
    for frame in (ZSTD, STREAMED):
        assert expand_zstd(memoryview(frame), len(TEXT), most=1 << 20) == TEXT
        assert expand_zstd(memoryview(frame), None, most=1 << 20) == TEXT


@pytest.mark.parametrize("frame", [ZSTD, STREAMED])
def test_a_frame_may_not_expand_to_more_than_its_cap(frame: bytes) -> None:
    with pytest.raises(InvalidInput, match=r"expect|more than"):
        expand_zstd(memoryview(frame), None, most=100)
    with pytest.raises(InvalidInput, match=r"expect|more than"):
        expand_zstd(memoryview(frame), len(TEXT) - 1, most=1 << 20)


@pytest.mark.parametrize("size", [0, len(TEXT) - 1, len(TEXT) + 1, 1 << 40])
def test_the_declared_size_must_be_met_exactly(size: int) -> None:
    with pytest.raises(InvalidInput):
        expand_lz4(memoryview(LZ4), size)
    with pytest.raises(InvalidInput):
        expand_zlib(memoryview(ZLIB), size)
    with pytest.raises(InvalidInput):
        expand_zstd(memoryview(ZSTD), size, most=1 << 50)


@pytest.mark.parametrize("data", [b"", b"damaged", LZ4[:-3], ZSTD[:-3], ZLIB[:-3], ZSTD + b"more"])
def test_damage_is_one_kind_of_error(data: bytes) -> None:
    with pytest.raises(InvalidInput):
        expand_lz4(memoryview(data), len(TEXT))
    with pytest.raises(InvalidInput):
        expand_zstd(memoryview(data), len(TEXT), most=1 << 20)
    with pytest.raises(InvalidInput):
        expand_zlib(memoryview(data), len(TEXT))


@pytest.mark.parametrize("size", [0, 1, 255, 256, 65_791, 65_792, 300_000])
@pytest.mark.parametrize("checksum", [True, False])
def test_the_length_of_a_frame_is_read_from_its_headers(size: int, *, checksum: bool) -> None:
    content = bytes(i * i % 251 for i in range(size))
    frame = zstandard.ZstdCompressor(write_checksum=checksum).compress(content)
    assert zstd_frame(memoryview(frame + b"next frame")) == (len(frame), size)


def test_a_frame_without_a_content_size_says_so() -> None:
    assert zstd_frame(memoryview(STREAMED)) == (len(STREAMED), None)


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (b"\x28\xb5\x2f", "within a header"),
        (b"no frame at all", "no zstd frame"),
        (b"\x28\xb5\x2f\xfd\xe0\1", "within its header"),
        (ZSTD[:-1], "outside its section"),
        (b"\x28\xb5\x2f\xfd\x20\x00\x06\x00\x00", "reserved block"),
        (b"\x28\xb5\x2f\xfd\x20\x00" + bytes(3 * 70_000), "more than 65536 blocks"),
    ],
)
def test_a_damaged_frame_header_is_refused(frame: bytes, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        zstd_frame(memoryview(frame))
