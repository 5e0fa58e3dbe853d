from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

import pytest

from kgate_core.errors import InvalidInput
from kgate_scanner import collection
from kgate_scanner.collection import Collection, collect_directory, collect_wheel, printable

if TYPE_CHECKING:
    from pathlib import Path


def test_a_file_that_vanishes_is_told_and_the_rest_is_kept(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x")
    (tmp_path / "b.py").write_text("y")
    found = collect_directory(tmp_path)
    (tmp_path / "a.py").unlink()
    found.add("c.py", tmp_path / "nowhere")
    manifest = found.read_manifest()
    assert [entry.path for entry in manifest.files] == ["b.py"]
    assert [(item.rule, item.path) for item in found.findings] == [
        ("KG-SCAN-003", "c.py"),
        ("KG-SCAN-003", "a.py"),
    ]
    assert not found.complete


def test_nothing_is_no_manifest() -> None:
    with pytest.raises(InvalidInput, match="no file to scan"):
        Collection().read_manifest()


def test_files_are_digested_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner/a.py").write_text("abc")
    (tmp_path / ".hidden").write_text("")
    (tmp_path / "skipped").mkdir()
    (tmp_path / "skipped/b.py").write_text("")
    found = collect_directory(tmp_path, skip=frozenset({"skipped"}))
    entries = found.read_manifest().by_path
    assert sorted(entries) == [".hidden", "inner/a.py"]
    assert entries["inner/a.py"].digest.hex.startswith("ba7816bf8f01cfea")
    with found.open_path("inner/a.py") as place:
        assert place.read_text() == "abc"


def test_a_broken_archive_is_refused(tmp_path: Path) -> None:
    wheel = tmp_path / "a.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("a.py", "x = 1\n" * 1000)
        opened.mkdir("empty")
    data = bytearray(wheel.read_bytes())
    data[40:60] = bytes(20)
    wheel.write_bytes(data)
    target = tmp_path / "into"
    target.mkdir()
    with pytest.raises(InvalidInput, match="not an archive that can be read"):
        collect_wheel(wheel, target)


def test_an_archive_that_unpacks_to_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = tmp_path / "a.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("a.py", b"#" * 1000)
        opened.writestr("b.py", b"#" * 1000)
    monkeypatch.setattr(collection, "_MAX_UNPACKED", 1500)
    target = tmp_path / "into"
    target.mkdir()
    with pytest.raises(InvalidInput, match=r"b\.py unpacks to more than it may"):
        collect_wheel(wheel, target)


def test_names_from_outside_are_shown_harmlessly() -> None:
    assert printable("a\x1b[31m\n\udcff") == "a\\x1b[31m\\x0a\\udcff"
    assert len(printable("x" * 5000)) == 1024
