from __future__ import annotations

import errno
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from kgate_core.digest import Digest
from kgate_core.errors import IntegrityError, KgateError, NotFound
from kgate_mirror_server.store.copying import Piece
from kgate_mirror_server.store.disk import DiskStore
from kgate_mirror_server.store.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kgate_mirror_server.ports import BlobStore

DATA = b"the bytes of a blob" * 1000
DIGEST = Digest.of(DATA)


@pytest.fixture(params=["disk", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    return DiskStore(tmp_path) if request.param == "disk" else MemoryStore()


@pytest.fixture
def disk(tmp_path: Path) -> DiskStore:
    return DiskStore(tmp_path)


def files_under(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


def test_a_blob_comes_back_as_it_was_put(store: BlobStore) -> None:
    assert not store.has(DIGEST)
    store.put(DIGEST, len(DATA), iter([DATA[:7], DATA[7:]]))
    assert store.has(DIGEST)
    with store.open(DIGEST) as file:
        assert file.read() == DATA
    assert store.path(DIGEST).read_bytes() == DATA


@pytest.mark.parametrize(
    ("chunks", "size"),
    [
        ([DATA[:-1]], len(DATA)),
        ([DATA, b"!"], len(DATA)),
        ([DATA[:-1] + b"!"], len(DATA)),
        ([DATA], len(DATA) - 1),
        ([DATA], len(DATA) + 1),
        ([], len(DATA)),
    ],
)
def test_bytes_that_were_not_promised_are_refused(
    store: BlobStore, chunks: list[bytes], size: int
) -> None:
    with pytest.raises(IntegrityError):
        store.put(DIGEST, size, chunks)
    assert not store.has(DIGEST)
    with pytest.raises(NotFound):
        store.open(DIGEST)
    with pytest.raises(NotFound):
        store.path(DIGEST)


def test_an_endless_body_is_read_no_further_than_promised(store: BlobStore) -> None:
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield b"x" * 1000

    with pytest.raises(IntegrityError):
        store.put(DIGEST, 10_000, endless())
    assert taken == 11


def test_a_blob_that_is_there_is_not_read_again(store: BlobStore) -> None:
    store.put(DIGEST, len(DATA), [DATA])
    unread = iter([b"anything"])
    store.put(DIGEST, len(DATA), unread)
    assert next(unread) == b"anything"


def test_an_empty_blob_can_be_stored(store: BlobStore) -> None:
    empty = Digest.of(b"")
    store.put(empty, 0, [])
    assert store.path(empty).read_bytes() == b""


def test_nothing_is_left_behind_by_a_refused_or_interrupted_put(
    disk: DiskStore, tmp_path: Path
) -> None:
    def interrupted() -> Iterator[bytes]:
        yield DATA[:10]
        raise ConnectionResetError

    with pytest.raises(IntegrityError):
        disk.put(DIGEST, len(DATA), [b"wrong"])
    with pytest.raises(ConnectionResetError):
        disk.put(DIGEST, len(DATA), interrupted())
    assert files_under(tmp_path) == []


def test_stored_files_are_read_only_whatever_the_umask(disk: DiskStore) -> None:
    before = os.umask(0o077)
    try:
        disk.put(DIGEST, len(DATA), [DATA])
    finally:
        os.umask(before)
    assert disk.path(DIGEST).stat().st_mode & 0o777 == 0o444
    assert disk.path(DIGEST).parts[-4:] == ("blobs", "sha256", DIGEST.hex[:2], DIGEST.hex)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_a_disk_that_refuses_gives_a_clear_error_and_no_file(
    disk: DiskStore, tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(KgateError) as caught:
        disk.put(DIGEST, len(DATA), [DATA])
    assert os.strerror(number) in caught.value.message
    assert caught.value.hint
    assert files_under(tmp_path) == []


def test_many_threads_may_put_the_same_blob(disk: DiskStore, tmp_path: Path) -> None:
    start = threading.Barrier(8)

    def put(_number: int) -> None:
        start.wait()
        disk.put(DIGEST, len(DATA), [DATA[:100], DATA[100:]])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, range(8)))
    assert files_under(tmp_path) == [disk.path(DIGEST)]


def test_scrub_finds_changed_and_truncated_blobs_and_nothing_else(disk: DiskStore) -> None:
    others = [Digest.of(data) for data in (b"one", b"two", b"three")]
    for digest, data in zip(others, (b"one", b"two", b"three"), strict=True):
        disk.put(digest, len(data), [data])
    assert list(disk.scrub()) == []
    for digest, data in ((others[0], b"onf"), (others[2], b"thr")):
        path = disk.path(digest)
        path.chmod(0o644)
        path.write_bytes(data)
    damage = {item.digest: item for item in disk.scrub()}
    assert set(damage) == {others[0], others[2]}
    assert damage[others[0]].found == Digest.of(b"onf")
    assert damage[others[2]].size == 3


def test_a_removed_blob_can_be_put_anew(disk: DiskStore) -> None:
    disk.put(DIGEST, len(DATA), [DATA])
    disk.remove(DIGEST)
    disk.remove(DIGEST)
    assert not disk.has(DIGEST)
    disk.put(DIGEST, len(DATA), [DATA])
    assert list(disk.digests()) == [DIGEST]


def test_sweep_takes_stale_temporary_files_only(disk: DiskStore, tmp_path: Path) -> None:
    stale, fresh = tmp_path / "tmp" / "stale", tmp_path / "tmp" / "fresh"
    now = datetime.now(UTC)
    for path in (stale, fresh):
        path.write_bytes(b"x")
    old = (now - timedelta(hours=2)).timestamp()
    os.utime(stale, (old, old))
    assert disk.sweep(now=now, older_than=timedelta(hours=1)) == 1
    assert files_under(tmp_path) == [fresh]


def test_a_store_that_cannot_be_created_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(KgateError, match="cannot be created"):
        DiskStore(tmp_path / "file" / "store")


def test_pieces_of_files_are_stored_and_checked_like_any_bytes(tmp_path: Path) -> None:
    store = DiskStore(tmp_path / "store")
    data = bytes(range(256)) * 80_000
    source = tmp_path / "source"
    source.write_bytes(b"before" + data + b"after")
    digest = Digest.of(data)
    with source.open("rb") as stream:
        with pytest.raises(IntegrityError, match="was promised"):
            store.put_pieces(digest, len(data), [Piece(stream, 5, len(data))])
        with pytest.raises(IntegrityError, match="promised"):
            store.put_pieces(digest, len(data) + 9, [Piece(stream, 6, len(data) + 9)])
        assert not store.has(digest)
        assert list((tmp_path / "store" / "tmp").iterdir()) == []
        half = len(data) // 2 + 1
        pieces = [Piece(stream, 6, half), Piece(stream, 6 + half, len(data) - half)]
        seen: list[int] = []
        store.put_pieces(digest, len(data), pieces, seen.append)
        store.put_pieces(digest, len(data), pieces, seen.append)
        assert sum(seen) == len(data)
    assert store.path(digest).read_bytes() == data
    assert store.path(digest).stat().st_mode & 0o777 == 0o444
