"""The object store's adapter against a live S3-speaking server on this machine."""

from __future__ import annotations

import os
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from kgate_core.digest import Digest
from kgate_core.errors import Conflict, IntegrityError, InvalidInput, NotFound, UpstreamError
from kgate_mirror_server.catalog.claims import FileClaims
from kgate_mirror_server.settings.site import load_config
from kgate_mirror_server.store.opening import object_place, open_other
from kgate_mirror_server.store.remote import PART
from kgate_mirror_server.store.tending import tended
from tests.objectstores import s3_server
from tests.sitekit import CONNECTED, Site

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.objectstores import S3

LARGE = PART + 5


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


def blob(size: int) -> tuple[Digest, bytes]:
    data = os.urandom(size)
    return Digest.of(data), data


def pieces(data: bytes, seen: list[int] | None = None) -> Iterator[bytes]:
    for start in range(0, len(data), 1024**2):
        if seen is not None:
            seen.append(start)
        yield data[start : start + 1024**2]


@pytest.mark.parametrize("size", [0, 1, LARGE])
def test_what_was_put_is_read_again_whole_and_in_ranges(s3: S3, tmp_path: Path, size: int) -> None:
    digest, data = blob(size)
    s3.store(tmp_path / "one").put(digest, size, pieces(data))
    other = s3.store(tmp_path / "two")
    assert other.has(digest)
    with other.open(digest) as stream:
        assert stream.read() == data
    assert b"".join(other.chunks(digest)) == data
    assert other.path(digest).read_bytes() == data
    seen = other.seen(digest)
    assert seen.size == size
    if size > 1:
        assert other.read(digest, 3, 7, seen.version) == data[3:10]
    assert digest in set(other.digests())


def test_what_is_not_as_promised_never_has_a_blobs_name(s3: S3, tmp_path: Path) -> None:
    store = s3.store(tmp_path)
    digest, data = blob(3 * 1024**2)
    reads: list[int] = []
    with pytest.raises(IntegrityError, match="the bytes are"):
        store.put(digest, len(data), [b"x" * len(data)])
    with pytest.raises(IntegrityError, match="more than"):
        store.put(digest, 5, pieces(data, reads))
    assert reads == [0]  # stopped at the first byte too many
    with pytest.raises(IntegrityError, match="bytes came"):
        store.put(digest, len(data) + 1, pieces(data))
    assert not store.has(digest)
    assert list((tmp_path / "tmp").iterdir()) == []
    with pytest.raises(NotFound):
        store.path(digest)
    with pytest.raises(NotFound):
        store.open(digest)


def test_a_blob_that_is_there_is_not_read_again(s3: S3, tmp_path: Path) -> None:
    digest, data = blob(100)
    store = s3.store(tmp_path)
    store.put(digest, 100, [data])
    reads: list[int] = []
    s3.store(tmp_path / "other").put(digest, 100, pieces(data, reads))
    assert reads == []


def test_of_two_writers_of_a_blob_one_reads_it(s3: S3, tmp_path: Path) -> None:
    digest, data = blob(LARGE)
    first, stopped, reads = threading.Event(), threading.Event(), list[int]()
    others: list[int] = []

    def slowly() -> Iterator[bytes]:
        first.set()
        stopped.wait(10)
        yield from pieces(data, reads)

    stores = [s3.store(tmp_path / name, FileClaims(tmp_path / "locks")) for name in ("a", "b")]
    one = threading.Thread(target=stores[0].put, args=(digest, LARGE, slowly()))
    one.start()
    assert first.wait(10)
    two = threading.Thread(target=stores[1].put, args=(digest, LARGE, pieces(data, others)))
    two.start()
    two.join(0.3)
    assert two.is_alive()  # it waits for the first
    stopped.set()
    one.join(30)
    two.join(30)
    assert reads
    assert others == []
    assert stores[1].path(digest).read_bytes() == data


def test_t15_an_object_that_changed_is_noticed_wherever_it_is_read(s3: S3, tmp_path: Path) -> None:
    digest, data = blob(LARGE)
    store = s3.store(tmp_path / "one")
    store.put(digest, LARGE, pieces(data))
    before = store.seen(digest)
    s3.overwrite(digest, b"x" * LARGE)
    with pytest.raises(Conflict, match="written again"):
        store.read(digest, 0, 10, before.version)
    fresh = s3.store(tmp_path / "two")
    with pytest.raises(IntegrityError, match="was promised"):
        fresh.path(digest)
    place = fresh.set_aside(digest)
    assert place.endswith(f"damaged/{digest.hex}")
    assert not fresh.has(digest)
    fresh.put(digest, LARGE, pieces(data))
    assert fresh.path(digest).read_bytes() == data


def test_local_copies_stay_below_their_limit_and_the_oldest_go_first(
    s3: S3, tmp_path: Path
) -> None:
    store = s3.store(tmp_path, limit=2500)
    blobs = [blob(1000) for _ in range(3)]
    for digest, data in blobs[:2]:
        store.put(digest, 1000, [data])
    old = datetime.now(UTC).timestamp() - 3600
    for age, (digest, _) in enumerate(blobs[:2]):
        place = store.path(digest)
        os.utime(place, (old + age, old + age))
    again = s3.store(tmp_path, limit=2500)  # another process: it knows no order but the disk's
    again.put(blobs[2][0], 1000, [blobs[2][1]])
    assert again.local(blobs[0][0]) is None
    assert again.local(blobs[1][0]) is not None
    assert again.path(blobs[0][0]).read_bytes() == blobs[0][1]  # fetched again


def test_t35_without_the_store_everything_says_so_and_nothing_is_left_behind(
    tmp_path: Path,
) -> None:
    with s3_server(tmp_path) as server:
        store = server.store(tmp_path / "cache")
        kept, data = blob(100)
        store.put(kept, 100, [data])
        server.stop()
        digest, other = blob(100)
        for call in (
            lambda: store.put(digest, 100, [other]),
            lambda: store.has(digest),
            lambda: list(store.digests()),
            lambda: store.path(digest),
        ):
            with pytest.raises(UpstreamError) as caught:
                call()
            assert "object store is up" in caught.value.hint
        assert store.path(kept).read_bytes() == data  # from its local copy
        assert list((tmp_path / "cache" / "tmp").iterdir()) == []


def test_temporary_files_of_a_crash_are_swept_and_stores_can_be_tended(
    s3: S3, tmp_path: Path
) -> None:
    store = s3.store(tmp_path, FileClaims(tmp_path / "claims"))
    part = tmp_path / "tmp" / "left"
    part.write_bytes(b"x")
    os.utime(part, (0, 0))
    assert tended(store).sweep(now=datetime.now(UTC), older_than=timedelta(days=1)) == 1
    other = s3.store(tmp_path, FileClaims(tmp_path / "claims"))
    with pytest.raises(Conflict, match="another command"), store.alone(wait=0.1):
        raise AssertionError("the other one uses it too")
    other.close()
    with store.alone(wait=0.1):
        store.remove(blob(1)[0])
    store.close()


@pytest.mark.parametrize(
    ("store", "said"),
    [("ftp://x/y", "not a store"), ("s3://", "not a store"), ("s3:///", "not a store")],
)
def test_a_store_of_an_unknown_kind_is_refused(tmp_path: Path, store: str, said: str) -> None:
    site = Site.found(tmp_path / "site", CONNECTED)
    _set_store(site, f"store: {store}\n")
    with pytest.raises(InvalidInput, match=said):
        load_config(site.config)


def test_credentials_come_from_a_file_that_is_never_shown(s3: S3, tmp_path: Path) -> None:
    site = Site.found(tmp_path / "site", CONNECTED)
    _set_store(site, s3.settings(site.folder))
    config = load_config(site.config)
    place = object_place(config)
    assert place is not None
    assert place.place.credentials == {
        "AWS_ACCESS_KEY_ID": "kgate",
        "AWS_SECRET_ACCESS_KEY": "kgate",
    }
    assert "AWS_SECRET" not in repr(place)
    assert list(open_other(config, "s3://kernels/empty").digests()) == []
    (site.folder / "s3.env").write_text("no equals sign\n", encoding="utf-8")
    with pytest.raises(InvalidInput, match="line 1"):
        object_place(config)


def _set_store(site: Site, lines: str) -> None:
    text = site.config.read_text(encoding="utf-8")
    line = next(line for line in text.splitlines() if line.startswith("store:"))
    site.config.write_text(text.replace(f"{line}\n", lines), encoding="utf-8")
