from __future__ import annotations

import errno
import hashlib
import os
from typing import TYPE_CHECKING, Any

import pytest

from kgate_core.errors import IntegrityError
from kgate_mirror_server.store.copying import BUFFER, NewFile, Piece

if TYPE_CHECKING:
    from pathlib import Path

DATA = os.urandom(BUFFER + 12_345)


def copied(source: Path, target: Path, *, times: int = 2) -> tuple[str, int]:
    state = hashlib.sha256()
    with source.open("rb") as stream, NewFile(target, 0o444) as file:
        file.write(b"head")
        for _ in range(times):
            file.copy(Piece(stream, 0, len(DATA), once=True), state, lambda _count: None)
        return state.hexdigest(), file.close()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(DATA)
    return path


def test_what_is_hashed_is_what_the_disk_gets_at_any_length(source: Path, tmp_path: Path) -> None:
    digest, size = copied(source, tmp_path / "new")
    assert (tmp_path / "new").read_bytes() == b"head" + DATA * 2
    assert (digest, size) == (hashlib.sha256(DATA * 2).hexdigest(), 4 + 2 * len(DATA))
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o444


def test_a_file_system_that_wants_no_direct_writes_gets_plain_ones(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, written = os.open, os.pwrite
    refused: list[str] = []

    def no_direct(path: Any, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_DIRECT:
            refused.append("open")
            raise OSError(errno.EINVAL, "no direct files here")
        return opened(path, flags, mode)

    def unaligned(file: int, data: Any, offset: int) -> int:
        if "pwrite" not in refused:
            refused.append("pwrite")
            raise OSError(errno.EINVAL, "other blocks")
        return written(file, data, offset)

    monkeypatch.setattr(os, "pwrite", unaligned)
    copied(source, tmp_path / "second")
    assert (tmp_path / "second").read_bytes() == b"head" + DATA * 2
    monkeypatch.setattr(os, "open", no_direct)
    copied(source, tmp_path / "first")
    assert (tmp_path / "first").read_bytes() == b"head" + DATA * 2
    assert refused == ["pwrite", "open"]


def test_a_disk_that_fills_up_is_told_and_not_taken_for_a_good_copy(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space left"):
        copied(source, tmp_path / "new", times=9)


def test_a_disc_that_cannot_be_read_is_no_fault_of_the_store(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scratched(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "preadv", scratched)
    with pytest.raises(IntegrityError, match="the source cannot be read"):
        copied(source, tmp_path / "new")
