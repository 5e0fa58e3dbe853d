from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kgate_client import files as files_module
from kgate_client.files import copy_files, digest_files, walk
from kgate_client.seal import SealedStore, discard, is_private
from kgate_core.errors import IntegrityError
from tests.trustkit import FILES, manifest_of

if TYPE_CHECKING:
    from collections.abc import Mapping


def _write(folder: Path, files: Mapping[str, bytes] = FILES) -> Path:
    for path, data in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    return folder


@pytest.fixture
def variant(tmp_path: Path) -> Path:
    return _write(tmp_path / "variant")


@pytest.fixture
def store(tmp_path: Path) -> SealedStore:
    return SealedStore(tmp_path / "sealed")


def _seal(store: SealedStore, variant: Path) -> Path:
    staging = store.stage()
    return store.keep(staging, copy_files(walk(variant), staging))


def test_the_manifest_is_that_of_the_bytes_written(variant: Path, store: SealedStore) -> None:
    staging = store.stage()

    copied = copy_files(walk(variant), staging)

    assert copied == manifest_of() == digest_files(walk(variant)) == digest_files(walk(staging))


def test_one_file_and_a_thousand_are_read_alike(tmp_path: Path) -> None:
    one = {"metadata.json": b"{}"}
    many = {f"m{number}/f.py": b"%d" % number for number in range(1000)}

    assert digest_files(walk(_write(tmp_path / "one", one))) == manifest_of(one)
    assert digest_files(walk(_write(tmp_path / "many", many))) == manifest_of(many)


def test_a_file_larger_than_the_buffer_is_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files_module, "CHUNK", 1000)
    files = {"a": os.urandom(10_001), "b": b""}
    store = SealedStore(tmp_path / "sealed")
    staging = store.stage()

    assert copy_files(walk(_write(tmp_path / "v", files)), staging) == manifest_of(files)
    assert (staging / "a").read_bytes() == files["a"]


def test_bytecode_beside_its_source_is_passed_over_and_named(variant: Path) -> None:
    _write(variant, {"__pycache__/x.cpython-311.pyc": b"", "__init__.pyc": b""})

    walked = walk(variant)

    assert walked.ignored == ("__init__.pyc", "__pycache__")
    assert digest_files(walked) == manifest_of()


@pytest.mark.parametrize("name", ["extra.pyc", "layers/extra.pyc"])
def test_bytecode_without_a_source_is_refused(variant: Path, name: str) -> None:
    _write(variant, {name: b""})

    with pytest.raises(IntegrityError, match="bytecode without its source"):
        walk(variant)


def test_links_are_followed_inside_the_repository_only(tmp_path: Path) -> None:
    repo = tmp_path / "kernels--acme--relu"
    blob = _write(repo / "blobs", {"b": b"data"}) / "b"
    variant = repo / "snapshots" / "build"
    variant.mkdir(parents=True)
    (variant / "inside.py").symlink_to(blob)

    assert digest_files(walk(variant, links_into=repo)) == manifest_of({"inside.py": b"data"})
    with pytest.raises(IntegrityError, match="is a link that leaves"):
        walk(variant)
    (variant / "outside.py").symlink_to("/etc/passwd")
    with pytest.raises(IntegrityError, match="is a link that leaves"):
        walk(variant, links_into=repo)


def test_a_dangling_link_a_pipe_and_a_linked_directory_are_refused(variant: Path) -> None:
    (variant / "gone.py").symlink_to("nowhere.py")
    with pytest.raises(IntegrityError, match="cannot be read"):
        walk(variant)
    (variant / "gone.py").unlink()
    os.mkfifo(variant / "pipe.py")
    with pytest.raises(IntegrityError, match="not a regular file"):
        walk(variant)
    (variant / "pipe.py").unlink()
    (variant / "folder").symlink_to(variant / "layers")
    with pytest.raises(IntegrityError, match="not a regular file"):
        walk(variant)


def test_a_name_that_file_systems_confuse_is_refused(variant: Path) -> None:
    _write(variant, {"a:b.py": b""})

    with pytest.raises(IntegrityError, match="not allowed"):
        walk(variant)


def test_depth_number_and_size_are_bounded(variant: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files_module, "MAX_DEPTH", 0)
    with pytest.raises(IntegrityError, match="nested deeper"):
        walk(variant)
    monkeypatch.setattr(files_module, "MAX_DEPTH", 32)
    monkeypatch.setattr(files_module, "MAX_FILES", 2)
    with pytest.raises(IntegrityError, match="more than 2 files"):
        walk(variant)
    monkeypatch.setattr(files_module, "MAX_FILES", 10)
    monkeypatch.setattr(files_module, "MAX_TOTAL", 8)
    with pytest.raises(IntegrityError, match="more than 8 bytes"):
        walk(variant)


def test_a_file_that_grows_while_it_is_read_is_given_up(
    variant: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    walked = walk(variant)
    monkeypatch.setattr(files_module, "MAX_TOTAL", 8)

    with pytest.raises(IntegrityError, match="grew beyond"):
        digest_files(walked)


def test_what_is_swapped_between_listing_and_reading_is_not_followed(variant: Path) -> None:
    walked = walk(variant)
    file = variant / "metadata.json"
    file.unlink()
    file.symlink_to("/etc/passwd")
    with pytest.raises(IntegrityError, match="cannot be read"):
        digest_files(walked)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(IntegrityError, match="not a regular file"):
        digest_files(walked)


def test_a_directory_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="cannot be read"):
        walk(tmp_path / "nowhere")


def test_a_sealed_copy_is_read_only_and_passes_its_own_check(
    variant: Path, store: SealedStore
) -> None:
    sealed = _seal(store, variant)

    assert sealed == store.path(manifest_of().digest) == store.check(manifest_of())
    assert {path.stat().st_mode & 0o222 for path in [sealed, *sealed.rglob("*")]} == {0}


def test_the_second_of_two_copies_steps_back(variant: Path, store: SealedStore) -> None:
    first = _seal(store, variant)

    assert _seal(store, variant) == first
    assert [path.name for path in store.root.iterdir()] == [first.name]


@pytest.mark.parametrize("spoil", ["byte", "bytecode", "added", "writable", "writable folder"])
def test_a_spoilt_copy_is_refused_and_replaced(
    variant: Path, store: SealedStore, spoil: str
) -> None:
    sealed = _seal(store, variant)
    sealed.chmod(0o700)
    file = sealed / "metadata.json"
    match spoil:
        case "byte":
            file.chmod(0o600)
            file.write_bytes(b"{}")
        case "bytecode":
            _write(sealed, {"__pycache__/x.pyc": b""})
        case "added":
            _write(sealed, {"a b.py ": b""})
        case "writable":
            file.chmod(0o620)
        case _:
            sealed.chmod(0o702)

    with pytest.raises(IntegrityError):
        store.check(manifest_of())
    replaced = _seal(store, variant)

    assert replaced != sealed
    assert digest_files(walk(replaced)) == manifest_of()


def test_a_prepared_copy_is_used_from_where_it_is(variant: Path, tmp_path: Path) -> None:
    prepared = _seal(SealedStore(tmp_path / "node"), variant)
    store = SealedStore(tmp_path / "own", shared=tmp_path / "node")

    assert store.check(manifest_of()) == prepared
    assert _seal(store, variant).parent == tmp_path / "own"


def test_a_directory_is_private_if_nobody_else_can_change_a_parent_of_it(tmp_path: Path) -> None:
    folder = tmp_path / "one" / "two"
    folder.mkdir(parents=True)
    assert is_private(folder)
    assert is_private(folder / "not" / "there" / "yet")
    folder.parent.chmod(0o770)
    assert not is_private(folder)
    folder.parent.chmod(0o1777)
    assert is_private(folder)
    assert not is_private(folder / ("x" * 300))


def test_a_copy_that_failed_is_cleared_away(variant: Path, store: SealedStore) -> None:
    staging = store.stage()
    copy_files(walk(variant), staging)
    for parent, _, _ in os.walk(staging):
        Path(parent).chmod(0o500)

    discard(staging)
    discard(staging)

    assert list(store.root.iterdir()) == []


def test_a_root_that_cannot_be_written_has_a_spare(variant: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    spare = tmp_path / "spare"

    assert _seal(SealedStore(blocked, spare=lambda: spare), variant).parent == spare
    with pytest.raises(OSError, match=r"exists|directory"):
        SealedStore(blocked).stage()


def test_a_copy_that_equals_the_files_is_found_by_comparing(
    tmp_path: Path, variant: Path, store: SealedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed = _seal(store, variant)
    manifest = manifest_of()
    assert store.compare(manifest, walk(variant)) == sealed

    (variant / "metadata.json").write_bytes(FILES["metadata.json"].swapcase())
    assert store.compare(manifest, walk(variant)) is None
    (variant / "metadata.json").unlink()
    assert store.compare(manifest, walk(variant)) is None
    monkeypatch.setattr(files_module, "MAX_TOTAL", 8)
    again = _write(tmp_path / "again", {"a": b""})
    assert store.compare(manifest_of({"a": b""}), walk(again)) is None


def test_large_variants_are_read_by_several_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files_module, "WORTH_THREADS", 1)
    monkeypatch.setattr(files_module, "WORKERS", 2)

    assert digest_files(walk(_write(tmp_path / "v"))) == manifest_of()


def test_where_the_kernel_cannot_copy_it_is_done_by_hand(
    variant: Path, store: SealedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "copy_file_range", refuse)

    sealed = _seal(store, variant)

    assert store.check(manifest_of()) == sealed
