from __future__ import annotations

from itertools import pairwise
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kgate_mirror_server.serve.ranges import MAX_RANGES, Span, Unsatisfiable, parse_ranges

SIZE = 1000


@pytest.mark.parametrize(
    ("header", "spans"),
    [
        ("bytes=0-0", [(0, 1)]),
        ("bytes=0-", [(0, 1000)]),
        ("bytes=990-", [(990, 1000)]),
        ("bytes=990-5000", [(990, 1000)]),
        ("bytes=-10", [(990, 1000)]),
        ("bytes=-5000", [(0, 1000)]),
        ("bytes=0-9,20-29", [(0, 10), (20, 30)]),
        ("bytes=20-29, 0-9", [(0, 10), (20, 30)]),
        ("bytes=0-9,5-14,15-19", [(0, 20)]),
        ("bytes=0-,0-,0-", [(0, 1000)]),
        ("bytes=0-9,2000-", [(0, 10)]),
        ("bytes= 0-9 ,, 20-29", [(0, 10), (20, 30)]),
    ],
)
def test_ranges_become_spans(header: str, spans: list[tuple[int, int]]) -> None:
    assert parse_ranges(header, SIZE) == tuple(Span(*span) for span in spans)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=9-0",
        "bytes=a-b",
        "bytes=0-9,x",
        "bytes=--1",
        "bytes=0x0-9",
        "items=0-9",
        "bytes=0-9;1",
        "bytes=" + ",".join(["0-0"] * (MAX_RANGES + 1)),
        "bytes=" + "9" * 400 + "-",
        "bytes=" + "0-1," * 10_000,
    ],
)
def test_what_is_malformed_foreign_or_too_much_counts_as_absent(header: str | None) -> None:
    assert parse_ranges(header, SIZE) is None


@pytest.mark.parametrize("header", ["bytes=1000-", "bytes=5000-6000", "bytes=-0", "bytes=1000-1,"])
def test_ranges_beyond_the_file_cannot_be_satisfied(header: str) -> None:
    expected = None if header == "bytes=1000-1," else Unsatisfiable
    assert parse_ranges(header, SIZE) is expected


def test_an_empty_file_has_no_range() -> None:
    assert parse_ranges("bytes=0-", 0) is Unsatisfiable
    assert parse_ranges("bytes=-1", 0) is Unsatisfiable


@given(st.text(alphabet="0123456789-, bytes=", max_size=60), st.integers(0, 100))
def test_spans_lie_inside_the_file_apart_from_each_other(text: str, size: int) -> None:
    for header in (text, f"bytes={text}", quote(text)):
        spans = parse_ranges(header, size)
        if isinstance(spans, tuple):
            assert spans
            assert all(0 <= span.start < span.end <= size for span in spans)
            assert all(one.end < two.start for one, two in pairwise(spans))
