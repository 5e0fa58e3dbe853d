"""Decompression with a cap: LZ4 blocks, zstd frames (RFC 8878), zlib streams (RFC 1950).

Each function writes at most the declared size, returns exactly that many bytes, and turns every
complaint of the libraries into InvalidInput. Nothing is guessed: too few or too many bytes are
errors.
"""

from __future__ import annotations

import struct
import zlib
from typing import Final

import lz4.block
import zstandard

from kgate_core.errors import InvalidInput
from kgate_scanner.device.extent import nonzero_bytes

_LZ4_MAX_RATIO: Final = 255  # one length byte of a block adds at most 255 bytes of output
_LZ4_SLACK: Final = 64  # bytes
_ZSTD_MAGIC: Final = 0xFD2FB528
_ZSTD_MAX_WINDOW: Final = 1 << 31  # bytes; frames of compilers use at most 128 MiB
_ZSTD_MAX_BLOCKS: Final = 65_536  # of at most 128 KiB each
_RLE_BLOCK: Final = 1
_RESERVED_BLOCK: Final = 3


def expand_lz4(stored: memoryview, size: int) -> bytes:
    """Return the `size` bytes of one LZ4 block; raises InvalidInput."""
    if size > len(stored) * _LZ4_MAX_RATIO + _LZ4_SLACK:
        raise InvalidInput(f"LZ4 cannot make {size} bytes out of {len(stored)}")
    try:
        expanded: bytes = lz4.block.decompress(stored, uncompressed_size=size)
    except (lz4.block.LZ4BlockError, ValueError, OverflowError, MemoryError) as exc:
        raise InvalidInput(f"LZ4 block of {len(stored)} bytes is damaged") from exc
    return _exactly(expanded, size, "LZ4 block")


def expand_zstd(stored: memoryview, size: int | None, *, most: int) -> bytes:
    """Return the content of one zstd frame, at most `most` bytes; raises InvalidInput.

    Nothing but zeros may follow the frame.

    `size` is what the container declares, None if it does not.
    """
    _check_rest(stored[zstd_frame(stored)[0] :], "zstd frame")
    try:
        declared = zstandard.get_frame_parameters(stored[:32]).content_size
        cap = most if size is None else min(size, most)
        if declared != zstandard.CONTENTSIZE_UNKNOWN and declared > cap:
            raise InvalidInput(f"zstd frame declares {declared} bytes, {cap} are expected")
        engine = zstandard.ZstdDecompressor(max_window_size=_ZSTD_MAX_WINDOW)
        with engine.stream_reader(stored, read_across_frames=False) as reader:
            expanded = reader.read(cap + 1)
    except (zstandard.ZstdError, ValueError, MemoryError) as exc:
        raise InvalidInput(f"zstd frame of {len(stored)} bytes is damaged") from exc
    if size is None and len(expanded) > most:
        raise InvalidInput(f"zstd frame expands to more than {most} bytes")
    wanted = size if size is not None else declared
    is_known = wanted != zstandard.CONTENTSIZE_UNKNOWN
    return _exactly(expanded, wanted, "zstd frame") if is_known else expanded


def expand_zlib(stored: memoryview, size: int) -> bytes:
    """Return the `size` bytes of one zlib stream, which only zeros may follow.

    Raises InvalidInput.
    """
    engine = zlib.decompressobj()
    try:
        expanded = engine.decompress(stored, size + 1)
    except (zlib.error, MemoryError, OverflowError) as exc:
        raise InvalidInput(f"zlib stream of {len(stored)} bytes is damaged") from exc
    if not engine.eof and len(expanded) <= size:
        raise InvalidInput(f"zlib stream of {len(stored)} bytes has no end")
    _check_rest(memoryview(engine.unused_data), "zlib stream")
    return _exactly(expanded, size, "zlib stream")


def zstd_frame(view: memoryview) -> tuple[int, int | None]:
    """Return stored length and declared content size of the frame at the start of `view`.

    Only headers are read (RFC 8878, sections 3.1.1.1 and 3.1.1.2); raises InvalidInput.
    """
    try:
        return _zstd_frame(view)
    except (struct.error, IndexError) as exc:
        raise InvalidInput("zstd frame ends within a header") from exc


def _zstd_frame(view: memoryview) -> tuple[int, int | None]:
    magic, descriptor = struct.unpack_from("<IB", view, 0)
    if magic != _ZSTD_MAGIC:
        raise InvalidInput("no zstd frame")
    single = bool(descriptor & 0x20)
    size_field = (1 if single else 0, 2, 4, 8)[descriptor >> 6]
    at = 5 + (0 if single else 1) + (0, 1, 2, 4)[descriptor & 3]
    content: int | None = None
    if size_field:
        if at + size_field > len(view):
            raise InvalidInput("zstd frame ends within its header")
        content = int.from_bytes(view[at : at + size_field], "little")
        content += 256 if size_field == 2 else 0  # noqa: PLR2004  # RFC 8878, 3.1.1.1.4
    at += size_field
    last, blocks = False, 0
    while not last:
        blocks += 1
        if blocks > _ZSTD_MAX_BLOCKS:
            raise InvalidInput(f"zstd frame of more than {_ZSTD_MAX_BLOCKS} blocks")
        header = view[at] | view[at + 1] << 8 | view[at + 2] << 16
        last, kind, size = bool(header & 1), header >> 1 & 3, header >> 3
        if kind == _RESERVED_BLOCK:
            raise InvalidInput("zstd frame with a reserved block")
        at += 3 + (1 if kind == _RLE_BLOCK else size)
    at += 4 if descriptor & 4 else 0
    if at > len(view):
        raise InvalidInput("zstd frame ends outside its section")
    return at, content


def _check_rest(rest: memoryview, what: str) -> None:
    if count := nonzero_bytes(rest):
        raise InvalidInput(f"{count} more bytes follow a {what}")


def _exactly(expanded: bytes, size: int, what: str) -> bytes:
    if len(expanded) != size:
        more = "more than " if len(expanded) > size else ""
        given = size if more else len(expanded)
        raise InvalidInput(f"{what} expands to {more}{given} bytes, {size} are declared")
    return expanded
