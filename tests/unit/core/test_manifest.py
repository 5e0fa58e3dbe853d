from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kgate_core import manifest as module
from kgate_core import strictjson
from kgate_core.digest import Digest
from kgate_core.errors import InvalidInput
from kgate_core.manifest import FileEntry, Manifest, check_path
from tests.steady import STEADY
from tests.trustkit import FILES, manifest_of

if TYPE_CHECKING:
    import random

GOLDEN = (
    b'{"files":['
    b'{"digest":"sha256:d27c3ad8a3690978462d530764abdf998411320b0804da29e7878fee2f9e8a16",'
    b'"path":"__init__.py","size":21},'
    b'{"digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",'
    b'"path":"layers/__init__.py","size":0}],'
    b'"schema":"kgate.dev/manifest/v1"}'
)
paths = st.lists(st.text("abAB01_-", min_size=1, max_size=6), min_size=1, max_size=3).map("/".join)


def entry(path: str, data: bytes = b"x") -> FileEntry:
    return FileEntry(path, len(data), Digest.of(data))


def test_canonical_bytes_never_change_between_releases() -> None:
    files = (entry("layers/__init__.py", b""), entry("__init__.py", b"from . import layers\n"))
    manifest = Manifest.of(files)
    assert manifest.canonical == GOLDEN
    assert manifest.digest.hex == hashlib.sha256(GOLDEN).hexdigest()
    assert Manifest.parse(GOLDEN) == manifest
    assert (manifest.size, list(manifest.by_path)) == (21, ["__init__.py", "layers/__init__.py"])


@STEADY
@given(st.dictionaries(paths, st.binary(max_size=8), min_size=1, max_size=8), st.randoms())
def test_equal_files_give_equal_bytes_in_any_order(
    files: dict[str, bytes], random_: random.Random
) -> None:
    shuffled = [entry(path, data) for path, data in files.items()]
    random_.shuffle(shuffled)
    try:
        manifest = manifest_of(files)
    except InvalidInput:
        with pytest.raises(InvalidInput):
            Manifest.of(shuffled)
    else:
        assert Manifest.of(shuffled).digest == manifest.digest
        assert Manifest.parse(manifest.canonical) == manifest


@pytest.mark.parametrize(
    "path",
    ["a", "a/b.so", "_ops.abi3.so", "a b", "ünï.py", "x" * 1024, "-", "a..b", "...x", ".hidden"],
)
def test_usable_paths_are_taken(path: str) -> None:
    assert check_path(path) == path


@pytest.mark.parametrize(
    "path",
    [
        "", "/etc/passwd", "../x", "a/../b", "a/./b", ".", "a//b", "a/", "a\\b", "C:x", "a*", "a?",
        'a"b', "a<b", "a>b", "a|b", "a\x00b", "a\nb", "a\x7f", "a\u200bb", "a\u202eb", "a\ud800",
        " a", "a ", "a/ b", "b /a", "a.", "a./b", "e\u0301", "x" * 1025, "ü" * 513, None, b"a",
    ],
)  # fmt: skip
def test_paths_that_some_file_system_confuses_are_refused(path: object) -> None:
    with pytest.raises(InvalidInput):
        check_path(path)  # type: ignore[arg-type]  # hostile on purpose
    with pytest.raises(InvalidInput):
        FileEntry(path, 1, Digest.of(b""))  # type: ignore[arg-type]  # the same


@pytest.mark.parametrize("size", [-1, module.MAX_SIZE + 1, True])
def test_impossible_sizes_are_refused(size: int) -> None:
    with pytest.raises(InvalidInput, match="a: impossible file size"):
        FileEntry("a", size, Digest.of(b""))
    assert FileEntry("a", module.MAX_SIZE, Digest.of(b"")).size == module.MAX_SIZE


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("a", "a"), "collide"),
        (("A.py", "a.py"), "collide"),
        (("STRASSE", "straße"), "collide"),
        (("ﬁ.so", "fi.so"), "collide"),
        (("a", "a/b"), "is a file and cannot hold"),
        (("A/x/y", "a/x"), "is a file and cannot hold"),
    ],
)
def test_paths_that_would_be_one_file_are_refused(names: tuple[str, str], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        Manifest.of(entry(name) for name in names)


def test_neighbours_that_only_look_alike_are_taken() -> None:
    assert len(Manifest.of(entry(name) for name in ("a", "a.b", "ab/c", "ab/d")).files) == 4


def test_a_manifest_is_neither_empty_nor_unsorted_nor_endless(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(InvalidInput, match="at least one"):
        Manifest(())
    with pytest.raises(InvalidInput, match="sorted"):
        Manifest((entry("b"), entry("a")))
    monkeypatch.setattr(module, "MAX_FILES", 2)
    with pytest.raises(InvalidInput, match="at most 2 files, found 3"):
        Manifest.of(entry(name) for name in "abc")


def _document() -> dict[str, object]:
    document: dict[str, object] = json.loads(manifest_of().canonical)
    return document


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (strictjson.dumps(_document() | {"schema": "kgate.dev/manifest/v2"}), "unknown schema"),
        (strictjson.dumps(_document() | {"more": 1}), "unknown field 'more'"),
        (strictjson.dumps(_document() | {"files": []}), "at least one"),
        (strictjson.dumps(_document() | {"files": [1]}), "expected an object"),
        (manifest_of().canonical.replace(b'"size":21', b'"size":21,"x":1'), "unknown field 'x'"),
        (manifest_of().canonical.replace(b'"size":21', b'"size":true'), "should be int"),
        (manifest_of().canonical.replace(b"sha256:", b"sha512:"), "not a digest"),
        (manifest_of().canonical + b"\n", "canonical form"),
        (json.dumps(_document()).encode(), "canonical form"),
        (b"[]", "expected an object"),
    ],
)
def test_every_other_spelling_of_a_manifest_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        Manifest.parse(data)


def test_differences_are_said_in_sentences() -> None:
    manifest = manifest_of()
    assert manifest.differences(manifest.files) == ()
    changed = dict(FILES)
    del changed["metadata.json"]
    changed["__init__.py"] = changed["__init__.py"].replace(b"layers", b"levels")
    changed["layers/__init__.py"] = b"import os"
    changed["extra.py"] = b""
    said = manifest.differences(manifest_of(changed).files)
    assert [line.partition(" ")[0] for line in said] == sorted({*FILES, "extra.py"})
    assert "instead of sha256:" in said[0]
    assert said[1:] == (
        "extra.py is not in the signed manifest",
        "layers/__init__.py has 9 bytes instead of 0",
        "metadata.json is missing",
    )
