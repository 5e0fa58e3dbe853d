"""PTX text: header, entry points, launch bounds; comments and hostile layout."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from kgate_scanner.device.ptx import read_ptx
from tests.unit.scanner.device.builders import ptx

if TYPE_CHECKING:
    from kgate_scanner.device.code import CodeObject

HEAD = b".version 8.7\n.target sm_90\n.address_size 64\n"


def _read(text: bytes) -> CodeObject:
    return read_ptx(memoryview(text))


def test_target_toolkit_and_entries_are_read() -> None:
    code = _read(ptx("sm_90a", ("first", "second")))
    assert (code.target, code.toolkit, code.damage) == ("compute_90a", "12.8", ())
    assert [kernel.name for kernel in code.kernels] == ["first", "second"]
    assert code.tools[0].version == "V12.8.93"


def test_launch_bounds_belong_to_their_entry() -> None:
    text = HEAD + b".entry a(.param .u64 p)\n.maxntid 16, 8, 2\n{\n}\n.entry b()\n{\n}\n"
    text += b".entry c()\n.reqntid 128\n{ }"
    kernels = [(kernel.name, kernel.max_threads) for kernel in _read(text).kernels]
    assert kernels == [("a", 256), ("b", None), ("c", 128)]


@pytest.mark.parametrize(
    "text",
    [
        b"// .entry ghost()\n{}\n.entry real() {}",
        b"/* .entry ghost() {} */ .entry real() {}",
        b"/* never closed\n .entry ghost() {}",
    ],
)
def test_entries_in_comments_are_no_kernels(text: bytes) -> None:
    assert "ghost" not in [kernel.name for kernel in _read(HEAD + text).kernels]


def test_several_entries_on_one_line_are_all_found() -> None:
    text = HEAD + b".entry a(){} .visible .entry b(){} .entry c(){}"
    assert [kernel.name for kernel in _read(text).kernels] == ["a", "b", "c"]


def test_a_slash_in_a_string_hides_nothing() -> None:
    text = HEAD + b'.file 1 "http://x/y.cu"\n.entry a(){}'
    code = _read(text)
    assert [kernel.name for kernel in code.kernels] == ["a"]
    assert code.source == "http://x/y.cu"
    assert code.has_lineinfo


def test_debug_targets_are_marked() -> None:
    assert _read(b".version 8.7\n.target sm_90, debug\n").debug


def test_text_without_directives_is_damage() -> None:
    assert _read(b"hello").damage == ("PTX without .version", "PTX without .target")


@pytest.mark.parametrize("filler", [b"/*", b"//", b".entry x ", b'"', b"/", b" ", b".version 1.0 "])
def test_hostile_text_takes_linear_time(filler: bytes) -> None:
    text = HEAD + filler * (400_000 // len(filler))
    started = time.perf_counter()
    _read(text)
    assert time.perf_counter() - started < 3
