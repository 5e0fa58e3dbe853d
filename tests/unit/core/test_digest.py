from __future__ import annotations

import hashlib

import pytest

from kgate_core.digest import Digest
from kgate_core.errors import InvalidInput

EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_a_digest_is_the_sha256_of_bytes() -> None:
    assert Digest.of(b"") == Digest(EMPTY)
    assert str(Digest.of(b"")) == f"sha256:{EMPTY}"
    assert Digest.of(memoryview(b"abc")).hex == hashlib.sha256(b"abc").hexdigest()


def test_chunks_and_whole_bytes_have_one_digest() -> None:
    assert Digest.of_chunks(iter([b"ab", b"", b"c"])) == Digest.of(b"abc")


def test_what_is_written_can_be_read_and_sorted() -> None:
    one, two = Digest("0" * 64), Digest("f" * 64)
    assert Digest.parse(str(one)) == one
    assert sorted([two, one]) == [one, two]
    assert one.short == "0" * 12


@pytest.mark.parametrize(
    "text",
    [
        EMPTY,
        f"sha512:{EMPTY}",
        f"SHA256:{EMPTY}",
        f"sha256:{EMPTY.upper()}",
        f"sha256:{EMPTY[:-1]}",
        f"sha256:{EMPTY}0",
        f"sha256:{EMPTY}\n",
        f"sha256: {EMPTY[1:]}",
        "sha256:" + "\u0660" * 64,
        "",
        None,
        7,
    ],
)
def test_every_other_spelling_of_a_digest_is_refused(text: object) -> None:
    with pytest.raises(InvalidInput):
        Digest.parse(text)  # type: ignore[arg-type]  # hostile on purpose


def test_hex_that_is_not_text_is_refused() -> None:
    with pytest.raises(InvalidInput):
        Digest(b"0" * 64)  # type: ignore[arg-type]  # hostile on purpose
