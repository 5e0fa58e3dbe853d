from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kgate_core import strictjson
from kgate_core.errors import InvalidInput
from tests.steady import STEADY

LIMIT = 2**53 - 1
_keys = st.text(st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"]), max_size=8)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-LIMIT, LIMIT)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_keys, inner, max_size=4),
    max_leaves=12,
)


def load(text: str | bytes, **options: Any) -> Any:
    data = text.encode() if isinstance(text, str) else text
    return strictjson.loads(data, what="it", **options)


def refused(text: str | bytes, **options: Any) -> str:
    with pytest.raises(InvalidInput) as caught:
        load(text, **options)
    assert caught.value.message.startswith("it: ")
    return caught.value.message


@STEADY
@given(values)
def test_canonical_bytes_are_read_back_as_the_same_value(value: Any) -> None:
    data = strictjson.dumps(value)
    assert load(data) == value
    assert strictjson.dumps(load(data)) == data


def test_canonical_bytes_are_sorted_compact_utf8() -> None:
    assert strictjson.dumps({"b": (1, None), "a": "ü\n\x7f"}) == (
        '{"a":"ü\\n\x7f","b":[1,null]}'.encode()
    )


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (1.5, "float"),
        (float("nan"), "float"),
        (2**53, "2^53"),
        (-(2**53), "2^53"),
        ({1: 2}, "key"),
        ({"\U0001f600": 1}, "key"),
        (["\ud800"], "surrogate"),
        ({"a": {"b": b""}}, "bytes"),
    ],
)
def test_what_has_no_canonical_form_is_not_written(value: Any, said: str) -> None:
    with pytest.raises(InvalidInput, match=said.replace("^", r"\^")):
        strictjson.dumps(value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a":1,"a":1}', "'a' stands twice"),
        ('{"x":[{"a":1,"b":2,"a":3}]}', "'a' stands twice"),
        ('{"a":1,"\\u0061":2}', "'a' stands twice"),
        ("NaN", "NaN"),
        ("[Infinity]", "Infinity"),
        ("-Infinity", "-Infinity"),
        ("1.0", "not an integer"),
        ("1e3", "not an integer"),
        (str(2**53), "2^53"),
        (str(-(2**53)), "2^53"),
        ("9" * 100_000, "2^53"),
        ('"\\ud800"', "surrogate"),
        ('{"\\udfff":1}', "surrogate"),
        ('[{"a":["\\ud83d"]}]', "surrogate"),
        (b'"\xff"', "not JSON"),
        (b'"\xed\xa0\x80"', "not JSON"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        ("", "not JSON"),
        ("{} {}", "not JSON"),
        ("{'a':1}", "not JSON"),
        ('{"a":1,}', "not JSON"),
        ('"a\nb"', "not JSON"),
        ("01", "not JSON"),
    ],
)
def test_what_readers_disagree_about_is_refused(text: str | bytes, said: str) -> None:
    assert said in refused(text)


def test_integers_up_to_the_limit_and_escaped_pairs_are_read() -> None:
    assert load(f"[{LIMIT},{-LIMIT},0]") == [LIMIT, -LIMIT, 0]
    assert load('{"a":["\\ud83d\\ude00",null,true,1]}') == {"a": ["\U0001f600", None, True, 1]}


def test_floats_are_read_only_where_they_are_asked_for_and_finite() -> None:
    assert load("[1.5,2]", floats=True) == [1.5, 2]
    assert "beyond a double" in refused("1e999", floats=True)
    assert "NaN" in refused("NaN", floats=True)


def test_size_is_checked_before_anything_is_parsed() -> None:
    assert load('"abc"', max_bytes=5) == "abc"
    assert "6 bytes are more than the 5 allowed" in refused('"abcd"', max_bytes=5)


def test_depth_is_limited_and_brackets_in_strings_do_not_count() -> None:
    assert load("[" * 64 + "]" * 64) is not None
    assert "deeper than 64" in refused("[" * 65 + "]" * 65)
    assert "deeper than 64" in refused('{"a":' * 65 + "1" + "}" * 65)
    assert "deeper than 64" in refused("[" * 1_000_000)
    assert load(json.dumps(["[[{" * 100, 'a"[\\', "]"])) == ["[[{" * 100, 'a"[\\', "]"]
    assert len(load("[" + "[],{}," * 100 + "[]]")) == 201


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"[" + b"[]," * 65 + b'"' + b'\\"' * 500_000, id="unterminated string"),
        pytest.param(b"[" + b"[]," * 65 + b'"\\\n' * 200_000, id="broken escapes"),
        pytest.param(
            b"{" + b"".join(b'"%d":1,' % i for i in range(60_000)) + b'"59999":1}',
            id="many keys and one twice",
        ),
    ],
)
def test_hostile_text_is_refused_in_linear_time(data: bytes) -> None:
    started = time.process_time()
    refused(data)
    # Quadratic behaviour takes minutes on each of these.
    assert time.process_time() - started < 2


def test_take_returns_a_field_of_the_wanted_kind_or_names_it() -> None:
    data = {"n": 1, "s": "x", "t": True, "l": ["a", "b"], "m": ["a", 1]}
    assert strictjson.take(data, "n", int, what="it") == 1
    assert strictjson.take(data, "t", bool, what="it") is True
    assert strictjson.take_strings(data, "l", what="it") == ("a", "b")
    for key, kind in (("t", int), ("n", str), ("n", bool)):
        with pytest.raises(InvalidInput, match=f"it: the field '{key}' should be"):
            strictjson.take(data, key, kind, what="it")
    with pytest.raises(InvalidInput, match="'z' is missing"):
        strictjson.take(data, "z", int, what="it")
    with pytest.raises(InvalidInput, match="expected an object, found list"):
        strictjson.take([], "z", int, what="it")
    with pytest.raises(InvalidInput, match="list of strings"):
        strictjson.take_strings(data, "m", what="it")


def test_unknown_fields_are_refused_by_name() -> None:
    strictjson.refuse_unknown({"a": 1}, {"a", "b"}, what="it")
    with pytest.raises(InvalidInput, match="it: unknown field 'c'"):
        strictjson.refuse_unknown({"c": 1, "d": 1}, {"a"}, what="it")
    with pytest.raises(InvalidInput, match="expected an object, found str"):
        strictjson.refuse_unknown("a", {"a"}, what="it")
