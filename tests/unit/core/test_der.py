from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kgate_core.der import Node
from kgate_core.errors import InvalidInput
from kgate_signer import der
from tests.steady import STEADY


def parse(text: str) -> Node:
    return Node.parse(bytes.fromhex(text))


@STEADY
@given(st.binary(max_size=300))
def test_what_is_written_is_read_back(content: bytes) -> None:
    written = der.value(der.OCTETS, content)
    assert Node.parse(written).octets() == content
    assert [node.octets() for node in Node.parse(der.sequence(written, written)).children(2)] == [
        content
    ] * 2


@STEADY
@given(st.integers(0, 2**70))
def test_numbers_are_read_back(number: int) -> None:
    assert Node.parse(der.integer(number)).integer() == number


@STEADY
@given(st.binary(max_size=64))
def test_any_bytes_are_a_value_or_refused(data: bytes) -> None:
    try:
        node = Node.parse(data)
    except InvalidInput:
        return
    assert node.data == data
    for read in (node.oid, node.time, node.integer, node.octets, node.only):
        try:
            read()
        except InvalidInput:
            continue


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("", "no value"),
        ("04", "no value"),
        ("1f2001", "no value"),
        ("0401", "cut off"),
        ("04810100", "shortest form"),
        ("0482007f", "shortest form"),
        ("0480", "shortest form"),
        ("0485000000000100", "shortest form"),
        ("0400ff", "1 bytes left over"),
    ],
)
def test_other_encodings_are_refused(data: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        parse(data)


def test_values_hold_as_many_others_as_expected() -> None:
    two = parse("3006020101020102")
    assert [node.integer() for node in two.children(1, 2)] == [1, 2]
    with pytest.raises(InvalidInput, match="2 values of at least 3"):
        two.children(3)
    with pytest.raises(InvalidInput, match="more than 1 values"):
        two.only()
    with pytest.raises(InvalidInput, match="holds no others"):
        parse("020101").children(1)


def test_object_identifiers_are_read() -> None:
    assert parse("06092a864886f70d010702").oid() == "1.2.840.113549.1.7.2"
    assert parse("0603883703").oid() == "2.999.3"
    assert parse("0601" + "27").oid() == "0.39"
    for data in ("0600", "060180", "0641" + "01" * 65):
        with pytest.raises(InvalidInput, match="not an object identifier"):
            parse(data).oid()
    with pytest.raises(InvalidInput, match="0x02 instead of 0x06"):
        parse("020101").oid()


def test_times_are_read_in_utc_only() -> None:
    def time(text: bytes) -> datetime:
        return Node.parse(der.value(0x18, text)).time()

    noon = datetime(2026, 11, 21, 12, 0, 5, tzinfo=UTC)
    assert time(b"20261121120005Z") == time(b"20261121120005.999Z") == noon
    for text in (b"20261121120005", b"20261121120005+0100", b"261121120005Z", b"20261321120005Z",
                 b"20261121120005.Z", b"\xd9\xa0" * 7 + b"Z"):  # fmt: skip
        with pytest.raises(InvalidInput, match="not a time in UTC"):
            time(text)
