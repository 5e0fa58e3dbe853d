from __future__ import annotations

import io
import tarfile
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kgate_core.digest import Digest
from kgate_core.errors import InvalidInput
from kgate_mirror_server.bundle.document import BUNDLE, BundleDocument
from kgate_mirror_server.bundle.layout import HeadFile, header, read_header
from kgate_mirror_server.bundle.packing import pack
from kgate_mirror_server.bundle.sealed import sealed_size

EMPTY = BundleDocument(
    "https://a.test", 7, datetime(2026, 11, 21, tzinfo=UTC), (), None,
    (HeadFile("trust/timestamp.json", Digest.of(b"t"), 4096),), (),
)  # fmt: skip


def blobs(*sizes: int) -> dict[Digest, int]:
    return {Digest.of(str(index).encode()): size for index, size in enumerate(sizes)}


def sizes(document: BundleDocument) -> list[int]:
    own = sealed_size(document.to_json(), BUNDLE)
    return [document.part_size(part, own) for part in range(len(document.parts))]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(0, 5_000_000), max_size=60),
    st.integers(200_000, 3_000_000),
)
def test_no_part_is_larger_than_asked_and_every_byte_is_in_one(
    wanted: list[int], limit: int
) -> None:
    content = blobs(*wanted)
    packed = pack(EMPTY, content, limit)
    assert max(sizes(packed)) <= limit
    assert packed.blobs == content
    # Reading it back refuses gaps, overlaps and blobs that stand twice.
    assert BundleDocument.from_json(packed.to_json()).blobs == content


def test_a_blob_that_fits_an_empty_part_is_not_cut_to_fill_a_small_rest() -> None:
    packed = pack(EMPTY, blobs(900_000, 300_000), 1_000_000)
    assert [[entry.cut for entry in part] for part in packed.parts] == [[False], [False]]


def test_a_blob_larger_than_a_part_is_cut_and_its_segments_sort_by_name() -> None:
    packed = pack(EMPTY, blobs(2_500_000), 1_000_000)
    entries = [entry for part in packed.parts for entry in part]
    assert len(packed.parts) == 3
    assert [entry.path for entry in entries] == sorted(entry.path for entry in entries)
    assert sum(entry.size for entry in entries) == 2_500_000


def test_parts_too_small_for_their_own_description_are_refused_with_the_least_size() -> None:
    with pytest.raises(InvalidInput, match="too small") as caught:
        pack(EMPTY, blobs(10), 4096)
    least = int(caught.value.hint.split()[-2])
    assert max(sizes(pack(EMPTY, blobs(10), least + 4096))) <= least + 4096


def test_headers_are_what_every_tar_reader_expects() -> None:
    for size in (0, 511, 10 * 1024**3):
        block = header("blobs/sha256/" + "a" * 64, size)
        assert read_header(block) == ("blobs/sha256/" + "a" * 64, size)
        info = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
        assert (info.mode, info.mtime, info.uid, info.uname) == (0o444, 0, 0, "")


def test_a_header_that_is_not_a_plain_files_is_none() -> None:
    link = tarfile.TarInfo("bundle.json")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    assert read_header(link.tobuf(tarfile.GNU_FORMAT)) is None
    assert read_header(b"\xff" * 512) is None
    assert read_header(b"") is None


def test_a_part_opens_with_tar() -> None:
    data = header("a", 3) + b"abc".ljust(512, b"\0") + bytes(1024)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert archive.getnames() == ["a"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"parts": []}, "0 parts"),
        ({"extra": 1}, "unknown field 'extra'"),
        ({"created": "yesterday"}, "not a time"),
        ({"parts": ["x"]}, "should be a list"),
        ({"head": [{"path": "a", "digest": "sha256:" + "0" * 64, "size": -1}]}, "impossible size"),
    ],
)
def test_a_malformed_description_is_refused(change: dict[str, object], said: str) -> None:
    document = pack(EMPTY, blobs(10, 2_000_000), 1_000_000).to_json()
    with pytest.raises(InvalidInput, match=said):
        BundleDocument.from_json(document | change)


def test_segments_that_leave_a_gap_or_overlap_are_refused() -> None:
    document = pack(EMPTY, blobs(2_500_000), 1_000_000).to_json()
    for part, field, value in ((1, "offset", 5), (0, "size", 10), (2, "of", 2_500_001)):
        broken = BundleDocument.from_json(document).to_json()
        broken["parts"][part][0][field] = value
        with pytest.raises(InvalidInput):
            BundleDocument.from_json(broken)


def test_a_blob_that_stands_twice_is_refused() -> None:
    document = pack(EMPTY, blobs(10), 1_000_000).to_json()
    document["parts"][0] *= 2
    with pytest.raises(InvalidInput, match="twice"):
        BundleDocument.from_json(document)
