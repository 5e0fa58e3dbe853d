from __future__ import annotations

from typing import TYPE_CHECKING

from kgate_client import store
from kgate_client.store import DocumentStore

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_a_document_is_written_whole_and_read_back(tmp_path: Path) -> None:
    documents = DocumentStore(tmp_path / "made" / "later")

    documents.write("trust/root.json", b"one")
    documents.write("trust/root.json", b"two")

    assert documents.read("trust/root.json") == b"two"
    assert [path.name for path in (tmp_path / "made/later/trust").iterdir()] == ["root.json"]
    assert documents.read("trust/none.json") is None


def test_without_a_directory_documents_live_in_the_process() -> None:
    documents = DocumentStore(None)

    assert documents.read("a") is None
    documents.write("a", b"kept")
    assert documents.read("a") == b"kept"


def test_a_directory_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    documents = DocumentStore(blocked)

    documents.write("a/b", b"kept")

    assert documents.read("a/b") == b"kept"
    assert DocumentStore(blocked).read("a/b") is None


def test_a_failed_replacement_leaves_no_temporary_file(tmp_path: Path) -> None:
    (tmp_path / "name").mkdir()
    documents = DocumentStore(tmp_path)

    documents.write("name", b"kept")

    assert documents.read("name") == b"kept"
    assert [path.name for path in tmp_path.iterdir()] == ["name"]


def test_an_endless_document_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MAX_DOCUMENT", 10)
    (tmp_path / "long").write_bytes(b"x" * 11)

    assert DocumentStore(tmp_path).read("long") is None
