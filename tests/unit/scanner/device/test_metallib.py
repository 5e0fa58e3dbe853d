"""Metal libraries: their compute functions by name, and lists that do not fit."""

from __future__ import annotations

import struct

import pytest

from kgate_scanner.device import ImageKind, scan_device
from kgate_scanner.device.metallib import read_metallib
from tests.scankit import scan_bytes


def function(name: str, kind: int) -> bytes:
    """Return the record of one function as Apple's tools write it."""
    text = name.encode() + b"\0"
    body = b"NAME" + struct.pack("<H", len(text)) + text
    body += b"TYPE" + struct.pack("<HB", 1, kind) + b"HASH" + struct.pack("<H", 32) + bytes(32)
    body += b"ENDT"
    return struct.pack("<I", len(body) + 4) + body


def metallib(*functions: bytes, count: int | None = None, start: int = 88) -> bytes:
    """Return a library with a list of functions and a little code."""
    records = struct.pack("<I", len(functions) if count is None else count) + b"".join(functions)
    size = 88 + len(records) + 64
    head = struct.pack("<4s12s9Q", b"MTLB", bytes(12), size, start, len(records), *[0] * 6)
    return head + records + bytes(64)


def test_compute_functions_are_listed_and_stages_of_drawing_are_not() -> None:
    data = metallib(function("scale", 2), function("vertex", 0), function("add", 2))
    found = scan_device(memoryview(data), "default.metallib")
    (image,) = found.images
    assert (image.kind, [kernel.name for kernel in image.kernels]) == (
        ImageKind.METALLIB,
        ["scale", "add"],
    )
    assert found.complete
    report = scan_bytes({"build/default.metallib": data})
    assert report.summary["device"]["kernels"] == 2
    assert report.files["build/default.metallib"]["kind"] == "device-code"


def test_a_library_without_a_list_is_no_damage() -> None:
    assert read_metallib(memoryview(metallib(start=0))).damage == ()


@pytest.mark.parametrize(
    "data",
    [
        metallib(function("scale", 2), count=2),
        metallib(function("scale", 2), start=(1 << 64) - 1),
        metallib(b"\xff\xff\xff\xff"),
        metallib(b"\0\0\0\0", count=1 << 31),
        metallib()[:50],
    ],
    ids=["too many", "elsewhere", "overlong", "empty", "cut off"],
)
def test_a_list_that_does_not_fit_is_damage(data: bytes) -> None:
    assert read_metallib(memoryview(data)).damage
    assert read_metallib(memoryview(data)).kernels == ()
