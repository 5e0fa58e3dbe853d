"""Results of earlier scans: equal reports, only what is new is read, nothing odd is believed."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from kgate_cli.main import main
from kgate_core.errors import TrustError
from kgate_scanner import paths, resultcache
from kgate_scanner.paths import scan_path
from kgate_scanner.resultcache import ResultCache
from kgate_scanner.scan import DEFAULT_LIMITS, VERSION, inspect_files
from tests.scankit import build_library

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from kgate_core.evidence import ScanReport

FILES = {
    "lib/a.so": build_library(),
    "ops.py": b"import subprocess\nsubprocess.run(['id'])\n",
    "notes.txt": b"text\n",
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "release"
    for name, data in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Return what the parsers were given, one list for each scan."""
    asked: list[list[str]] = []

    def inspect(sizes: Mapping[str, int], *args: object, **kwargs: object) -> object:
        asked.append(sorted(sizes))
        return inspect_files(sizes, *args, **kwargs)  # type: ignore[arg-type]  # passed on

    monkeypatch.setattr(paths, "inspect_files", inspect)
    return asked


def scan(tree: Path, version: str = VERSION) -> ScanReport:
    (found,) = scan_path(tree, results=cache_at(tree, version))
    return found.report


def cache_at(tree: Path, version: str = VERSION) -> ResultCache:
    return ResultCache(tree.parent / "cache", version, DEFAULT_LIMITS)


def kept(tree: Path) -> list[Path]:
    return sorted((tree.parent / "cache").rglob("*.json"))


def test_a_second_scan_reads_nothing_and_reports_the_same(
    tree: Path, read: list[list[str]]
) -> None:
    (plain,) = scan_path(tree)
    first, second = scan(tree), scan(tree)
    assert read[1:] == [sorted(FILES), []]
    assert first.to_bytes() == second.to_bytes() == plain.report.to_bytes()


def test_of_a_new_release_only_what_changed_is_read(tree: Path, read: list[list[str]]) -> None:
    scan(tree)
    (tree / "ops.py").write_bytes(b"x = 1\n")
    (tree / "new.py").write_bytes(b"y = 1\n")
    report = scan(tree)
    assert read[-1] == ["new.py", "ops.py"]
    assert [item for item in report.findings if item.path == "ops.py"] == []


def test_a_file_under_another_name_is_read_again(tree: Path, read: list[list[str]]) -> None:
    scan(tree)
    (tree / "notes.txt").rename(tree / "usercustomize.py")
    assert "KG-FILE-014" in {finding.rule for finding in scan(tree).findings}
    assert read[-1] == ["usercustomize.py"]


def test_another_version_of_the_scanner_reads_everything(tree: Path, read: list[list[str]]) -> None:
    scan(tree)
    scan(tree, version="99")
    assert read[-1] == sorted(FILES)


def test_a_change_of_python_rules_reads_python_only(
    tree: Path, read: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    scan(tree)
    rules = __import__("kgate_scanner.rules_python", fromlist=["RULES"])
    resultcache._rules_of.cache_clear()  # a process knows one table otherwise
    monkeypatch.setattr(rules, "RULES", rules.RULES[:-1])
    scan(tree)
    assert read[-1] == ["ops.py"]
    monkeypatch.undo()
    resultcache._rules_of.cache_clear()  # as above


def test_a_file_that_was_not_read_to_its_end_is_not_kept(tree: Path) -> None:
    (tree / "lib/a.so").write_bytes(FILES["lib/a.so"][:600])
    assert not scan(tree).complete
    assert len(kept(tree)) == len(FILES) - 1


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document | {"findings": [{"rule": "x"}]},
        lambda document: document | {"facts": []},
        lambda document: document | {"digest": "sha256:" + "0" * 64},
        lambda document: document | {"schema": "other"},
        lambda document: document | {"path": "other.py"},
        lambda document: [document],
    ],
)
def test_a_result_that_was_tampered_with_is_read_anew(
    tree: Path,
    read: list[list[str]],
    change: object,
) -> None:
    expected = scan(tree).to_bytes()
    for place in kept(tree):
        place.write_text(json.dumps(change(json.loads(place.read_bytes()))))  # type: ignore[operator]  # a lambda
    assert scan(tree).to_bytes() == expected
    assert read[-1] == sorted(FILES)


def test_a_result_that_is_no_json_is_read_anew(tree: Path, read: list[list[str]]) -> None:
    scan(tree)
    kept(tree)[0].write_bytes(b"{")
    scan(tree)
    assert len(read[-1]) == 1


def test_a_file_that_is_replaced_while_it_is_read_is_not_kept(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def inspect(*args: object, **kwargs: object) -> object:
        (tree / "notes.txt").write_bytes(b"TEXT\n")
        os.utime(tree / "notes.txt", ns=(0, 0))
        return inspect_files(*args, **kwargs)  # type: ignore[arg-type]  # passed on

    monkeypatch.setattr(paths, "inspect_files", inspect)
    scan(tree)
    assert len(kept(tree)) == len(FILES) - 1


def test_a_cache_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(TrustError, match="others could change the results"):
        ResultCache(tmp_path, VERSION, DEFAULT_LIMITS)


def test_a_cache_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(TrustError, match="cannot hold results"):
        ResultCache(tmp_path / "file/cache", VERSION, DEFAULT_LIMITS)


def test_a_cache_that_cannot_be_written_to_is_no_reason_to_fail(tree: Path) -> None:
    cache = cache_at(tree)
    (tree.parent / "cache").rmdir()
    (found,) = scan_path(tree, results=cache)
    assert found.report.complete
    assert cache.reused == 0


def test_the_command_says_how_much_it_did_not_read_again(
    tree: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tree.parent / "results"
    assert main(["scan", str(tree), "--cache", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["reused"] == 0
    monkeypatch.setenv("KGATE_SCAN_CACHE", str(folder))
    assert main(["scan", str(tree)]) == 0
    assert f"{len(FILES)} files were read by an earlier scan." in capsys.readouterr().out
