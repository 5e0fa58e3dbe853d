"""A run that is killed while a large file comes in: the next one asks for the rest only."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from kgate_core.digest import Digest
from kgate_core.errors import IntegrityError, UpstreamError
from kgate_mirror_server.examples.metadata import digest_of
from kgate_mirror_server.hubsim import HubSimulator, Slow
from kgate_mirror_server.store.disk import DiskStore
from tests.ingestkit import make_site

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REPO = "acme/big"
SIZE = 24 * 1024**2  # bytes
DATA = bytes(range(256)) * 64


def chunks(data: bytes, offset: int) -> Iterator[bytes]:
    return (data[at : at + 1000] for at in range(offset, len(data), 1000))


def broken(data: bytes, after: int) -> Iterator[bytes]:
    yield data[:after]
    raise UpstreamError("the line is cut")


def incoming(root: Path) -> list[Path]:
    folder = root / "incoming"
    return sorted(folder.iterdir()) if folder.exists() else []


def test_what_came_before_an_error_is_not_asked_for_again(tmp_path: Path) -> None:
    store, digest, asked = DiskStore(tmp_path), Digest.of(DATA), list[int]()
    with pytest.raises(UpstreamError):
        store.resume(digest, len(DATA), lambda offset: broken(DATA[offset:], 5000))
    assert not store.has(digest)
    assert [path.stat().st_size for path in incoming(tmp_path)] == [5000]

    def rest(offset: int) -> Iterator[bytes]:
        asked.append(offset)
        return chunks(DATA, offset)

    store.resume(digest, len(DATA), rest)
    assert asked == [5000]
    assert store.path(digest).read_bytes() == DATA
    assert store.path(digest).stat().st_mode & 0o777 == 0o444
    assert incoming(tmp_path) == []
    store.resume(digest, len(DATA), rest)
    assert asked == [5000]


def test_a_part_that_somebody_changed_is_found_and_everything_fetched(tmp_path: Path) -> None:
    store, digest, asked = DiskStore(tmp_path), Digest.of(DATA), list[int]()
    with pytest.raises(UpstreamError):
        store.resume(digest, len(DATA), lambda offset: broken(DATA[offset:], 5000))
    (part,) = incoming(tmp_path)
    part.write_bytes(b"x" * 4000)

    def rest(offset: int) -> Iterator[bytes]:
        asked.append(offset)
        return chunks(DATA, offset)

    store.resume(digest, len(DATA), rest)
    assert asked == [4000, 0]
    assert store.path(digest).read_bytes() == DATA


@pytest.mark.parametrize("other", [DATA[:-1] + b"x", DATA + b"x", DATA[:-1]])
def test_bytes_that_were_not_promised_leave_nothing(tmp_path: Path, other: bytes) -> None:
    store, digest = DiskStore(tmp_path), Digest.of(DATA)
    with pytest.raises(IntegrityError):
        store.resume(digest, len(DATA), lambda offset: chunks(other, offset))
    assert not store.has(digest)
    assert [path.stat().st_size for path in incoming(tmp_path)] in ([], [0])


def test_two_at_once_do_not_write_to_one_part(tmp_path: Path) -> None:
    store, digest = DiskStore(tmp_path), Digest.of(DATA)

    def with_another(offset: int) -> Iterator[bytes]:
        for number, chunk in enumerate(chunks(DATA, offset)):
            if number == 3:
                DiskStore(tmp_path).resume(digest, len(DATA), lambda at: chunks(DATA, at))
            yield chunk

    store.resume(digest, len(DATA), with_another)
    assert store.path(digest).read_bytes() == DATA


def test_an_old_part_is_swept_away(tmp_path: Path) -> None:
    store, digest = DiskStore(tmp_path), Digest.of(DATA)
    with pytest.raises(UpstreamError):
        store.resume(digest, len(DATA), lambda offset: broken(DATA[offset:], 5000))
    assert store.sweep(now=datetime.now(UTC), older_than=timedelta(days=1)) == 0
    (part,) = incoming(tmp_path)
    os.utime(part, (0, 0))
    assert store.sweep(now=datetime.now(UTC), older_than=timedelta(days=1)) == 1
    assert incoming(tmp_path) == []


def test_a_killed_sync_goes_on_where_it_was(tmp_path: Path) -> None:
    variant = tmp_path / "hub" / "build" / "torch-cpu"
    variant.mkdir(parents=True)
    data = b"".join(hashlib.sha256(str(n).encode()).digest() for n in range(SIZE // 32))
    (variant / "weights.bin").write_bytes(data)
    (variant / "__init__.py").write_text("ANSWER = 42\n", encoding="utf-8")
    document: dict[str, object] = {"name": "big", "id": "_big_abc1234", "version": 1}
    document |= {"license": "MIT", "python-depends": [], "backend": {"type": "cpu"}}
    path = variant / "metadata.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    path.write_text(json.dumps({**document, "digest": digest_of(variant)}), encoding="utf-8")
    with HubSimulator() as hub:
        hub.publish(REPO, tmp_path / "hub")
        site = make_site(tmp_path / "site", hub.url)
        site.pin(f"repo: {REPO}, version: 1")
        site.lock()
        hub.inject(Slow(0.02), path="*weights.bin")
        program = "import sys; from kgate_cli.main import main; sys.exit(main())"
        process = subprocess.Popen(
            [sys.executable, "-c", program, "sync", "--config", str(site.config_path)],
            stderr=subprocess.DEVNULL,
        )
        store = site.folder / "kgate-data"
        until = time.monotonic() + 60
        while not any(part.stat().st_size > SIZE // 8 for part in incoming(store)):
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.02)
        process.kill()
        process.wait()
        (part,) = incoming(store)
        had = part.stat().st_size
        assert 0 < had < SIZE
        hub.heal()
        hub.forget_requests()
        result = site.sync()
    assert not result.failures
    assert Digest.of(data).hex in site.stored()
    assert result.fetched_bytes < SIZE - had + 1024**2
    assert incoming(store) == []
