"""Readers of host code, Python, metadata and file kinds: any bytes give a value, never an error."""

from __future__ import annotations

import ast
import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kgate_core.kernel import Variant
from kgate_scanner.dynamic import check_views, read_dynamic
from kgate_scanner.elf import Elf
from kgate_scanner.files import identify
from kgate_scanner.hostcopy import host_copy
from kgate_scanner.metadata import check_metadata, read_metadata
from kgate_scanner.python import read_python
from kgate_scanner.strings import read_strings
from kgate_scanner.worker import clean
from tests.scankit import CPU, build_library, manifest_of

quickly = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
LIBRARY = build_library('int system(const char *); int f(void) { return system("id"); }')

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
names = st.sampled_from(
    ["name", "id", "license", "backend", "digest", "provenance", "python-depends", "kernel-depends"]
)
edits = st.lists(
    st.tuples(st.integers(0, len(LIBRARY) - 1), st.binary(min_size=1, max_size=8)), max_size=12
)


def mutated(changes: list[tuple[int, bytes]], keep: int) -> memoryview:
    data = bytearray(LIBRARY)
    for at, value in changes:
        data[at : at + len(value)] = value
    return memoryview(bytes(data[:keep]))


@quickly
@given(st.binary(max_size=600), st.text(max_size=30).filter(lambda text: "\0" not in text))
def test_any_bytes_under_any_name_are_identified(data: bytes, name: str) -> None:
    assert identify(memoryview(data), name).kind


@quickly
@given(edits, st.integers(0, len(LIBRARY)))
def test_a_damaged_library_has_two_views_or_one(
    changes: list[tuple[int, bytes]], keep: int
) -> None:
    elf = Elf(mutated(changes, keep))
    assert all(isinstance(text, str) for text in check_views(elf, read_dynamic(elf), 5))
    assert len(host_copy(elf)) == keep
    facts = read_strings(elf.data, [(0, keep), (keep // 2, keep * 2)])
    assert facts["urls"] == []


@quickly
@given(st.text(max_size=300))
def test_any_text_is_read_as_python_or_refused(text: str) -> None:
    data = text.encode("utf-8", "surrogatepass")
    found = read_python(memoryview(data), "a.py")
    json.dumps(clean(found.facts))
    assert all(finding.path == "a.py" for finding in found.findings)


@quickly
@given(st.data())
def test_any_tree_of_python_is_walked(data: st.DataObject) -> None:
    # Sources that do parse, put together from pieces that matter.
    pieces = st.sampled_from(
        ["os.system", "exec", "getattr(os, 'x')", "__import__('a').b", "x.y.z", "lambda: 0",
         "open", "a[1]", "base64.b64decode", "f'{x}'", "[*a]", "(yield)", "await x", "1"]
    )  # fmt: skip
    shapes = st.sampled_from(
        ["{0}({1})", "{0} = {1}", "import os as {2}", "from os import {2} as x", "del {2}",
         "@{0}\ndef f(a={1}): return {0}", "class A({0}): x = {1}", "for {2} in {0}: {1}"]
    )  # fmt: skip
    lines = data.draw(st.lists(st.tuples(shapes, pieces, pieces), max_size=8))
    word = data.draw(st.sampled_from(["os", "exec", "x"]))
    source = "\n".join(shape.format(one, two, word) for shape, one, two in lines)
    try:
        ast.parse(source)
    except SyntaxError:
        expected = {"KG-PY-001"}
    else:
        expected = set()
    found = {finding.rule for finding in read_python(memoryview(source.encode()), "a.py").findings}
    assert expected <= found


@quickly
@given(st.dictionaries(names, json_values, max_size=8), st.text(max_size=10))
def test_any_document_is_read_as_metadata_or_refused(document: dict[str, Any], path: str) -> None:
    data = json.dumps({"name": "relu", "backend": {"type": "cpu"}, **document}).encode()
    found = read_metadata(memoryview(data), "metadata.json")
    manifest = manifest_of({"metadata.json": data, "a.py": b""})
    between = check_metadata(found.facts, manifest, Variant.parse(CPU), {"cuda": {path}})
    assert all(finding.rule.startswith("KG-META-") for finding in [*found.findings, *between])


@quickly
@given(json_values)
def test_whatever_a_parser_says_can_be_written(value: object) -> None:
    json.dumps(clean({"facts": value}), ensure_ascii=False).encode("utf-8")
