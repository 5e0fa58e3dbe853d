from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from kgate_core.errors import InvalidInput, NotFound, UpstreamError
from kgate_core.evidence import ScanReport
from kgate_mirror_server.examples.metadata import Metadata, write_metadata
from kgate_scanner import collection, paths
from kgate_scanner.isolate import ScanLimits
from kgate_scanner.paths import scan_path
from kgate_scanner.scan import scan_files, scan_variant, scanner_name
from tests.scankit import CPU, build_library, manifest_of, rules_of, scan_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kgate_core.manifest import FileEntry

NETWORK = "int socket(int, int, int); int f(void) { return socket(2, 1, 0); }"
FILES = {
    "__init__.py": b"import triton\n@triton.jit\ndef add(x): pass\n",
    "lib.so": build_library(NETWORK),
    "helper.py": b"import os\nos.system('id')\n",
}


def variant_directory(place: Path, name: str = CPU, files: dict[str, bytes] = FILES) -> Path:
    directory = place / name
    for path, data in files.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_bytes(data)
    write_metadata(directory, Metadata("relu", "_relu_4f3a2b1c", 1, "apache-2.0", "cpu"))
    return directory


def test_a_variant_is_scanned_file_by_file_and_as_a_whole(tmp_path: Path) -> None:
    (scanned,) = scan_path(variant_directory(tmp_path))
    report = scanned.report
    assert (scanned.name, scanned.variant) == (".", CPU)
    assert scanned.metadata["name"] == "relu"
    assert report.complete
    assert report.subject == scanned.manifest.digest
    assert report.scanner == scanner_name()
    assert {path: facts["kind"] for path, facts in report.files.items()} == {
        "__init__.py": "python",
        "helper.py": "python",
        "lib.so": "elf-shared-object",
        "metadata.json": "metadata",
    }
    assert [(finding.rule, finding.path) for finding in report.findings] == [
        ("KG-PY-003", "helper.py"),
        ("KG-PY-010", "helper.py"),
        ("KG-HOST-008", "lib.so"),
        ("KG-META-006", "metadata.json"),
    ]
    assert report.summary["variant"] == CPU
    assert report.summary["findings"]["high"] == 3
    assert report.summary["host"]["dangerous"] == ["socket"]
    assert report.summary["python"]["kernels"] == 1
    assert ScanReport.from_bytes(report.to_bytes()).to_bytes() == report.to_bytes()


def test_the_same_bytes_always_give_the_same_report(tmp_path: Path) -> None:
    directory = variant_directory(tmp_path)
    (first,) = scan_path(directory)
    program = (
        "import sys, pathlib; from kgate_scanner.paths import scan_path\n"
        "sys.stdout.buffer.write(scan_path(pathlib.Path(sys.argv[1]))[0].report.to_bytes())"
    )
    for seed in ("1", "2"):
        again = subprocess.run(
            [sys.executable, "-c", program, str(directory)],
            env={**os.environ, "PYTHONHASHSEED": seed, "TZ": "Asia/Tokyo"},
            capture_output=True, check=True, timeout=60,
        )  # fmt: skip
        assert again.stdout == first.report.to_bytes()


def test_a_path_and_bytes_in_memory_are_scanned_alike(tmp_path: Path) -> None:
    directory = variant_directory(tmp_path)
    (scanned,) = scan_path(directory)
    names = [*FILES, "metadata.json"]
    files = {path: (directory / path).read_bytes() for path in names}
    assert scan_bytes(files, CPU).to_bytes() == scanned.report.to_bytes()


def test_a_name_that_is_no_variant_cannot_be_scanned_as_one() -> None:
    def open_file(entry: FileEntry) -> NoReturn:
        raise AssertionError(entry)

    with pytest.raises(InvalidInput, match="not a build variant"):
        scan_variant("nonsense", manifest_of(FILES), open_file)


@pytest.mark.parametrize("error", [OSError("gone"), UpstreamError("no answer")])
def test_a_file_that_cannot_be_opened_makes_the_scan_incomplete(error: Exception) -> None:
    @contextmanager
    def open_file(entry: FileEntry) -> Iterator[memoryview]:
        if entry.path == "helper.py":
            raise error
        yield memoryview(FILES[entry.path])

    report = scan_files(manifest_of(FILES), open_file, variant=None)
    assert not report.complete
    assert report.files["helper.py"]["kind"] == "unread"
    assert any(found.rule.startswith("KG-SCAN-") for found in report.findings)


def test_a_file_that_is_not_the_one_of_the_manifest_is_not_scanned() -> None:
    @contextmanager
    def open_file(_: FileEntry) -> Iterator[memoryview]:
        yield memoryview(b"other")

    report = scan_files(manifest_of({"a.py": b"x"}), open_file, variant=None)
    assert rules_of(report) == {"KG-SCAN-003"}


def test_a_file_beyond_the_limit_is_said_to_be_unread() -> None:
    report = scan_bytes(FILES, limits=ScanLimits(file_bytes=1000))
    assert rules_of(report, "lib.so") == {"KG-SCAN-002"}
    assert not report.complete


def test_a_library_alone_is_scanned_under_its_name(tmp_path: Path) -> None:
    library = tmp_path / "lib.so"
    library.write_bytes(FILES["lib.so"])
    (scanned,) = scan_path(library)
    assert (scanned.name, scanned.variant) == ("lib.so", None)
    assert rules_of(scanned.report) == {"KG-HOST-008"}


def test_a_repository_gives_one_report_per_variant_and_one_for_the_rest(tmp_path: Path) -> None:
    variant_directory(tmp_path / "build")
    variant_directory(tmp_path / "build", "torch-cpu", {"__init__.py": b""})
    (tmp_path / "README.md").write_text("# relu\n")
    (tmp_path / "kernel-status.toml").write_text('kind = "redirect"\ndestination = "a/b"\n')
    scanned = scan_path(tmp_path)
    assert [(item.name, item.variant) for item in scanned] == [
        (".", None),
        ("build/torch-cpu", "torch-cpu"),
        (f"build/{CPU}", CPU),
    ]
    assert rules_of(scanned[0].report) == {"KG-FILE-006"}


def test_a_variant_without_metadata_is_still_a_variant_in_a_repository(tmp_path: Path) -> None:
    (variant_directory(tmp_path / "build") / "metadata.json").unlink()
    (scanned,) = scan_path(tmp_path)
    assert "KG-META-001" in rules_of(scanned.report)


def test_a_hub_cache_is_followed_through_its_own_links(tmp_path: Path) -> None:
    snapshot = tmp_path / "snapshots" / ("a" * 40) / "build" / CPU
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    source = variant_directory(tmp_path / "source")
    snapshot.mkdir(parents=True)
    for number, file in enumerate(sorted(source.iterdir())):
        (blobs / str(number)).write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(f"../../../../blobs/{number}")
    (scanned,) = scan_path(tmp_path)
    assert scanned.name == f"snapshots/{'a' * 40}/build/{CPU}"
    assert scanned.report.complete
    assert len(scanned.report.files) == 4


def test_links_and_special_files_are_not_followed_out(tmp_path: Path) -> None:
    directory = variant_directory(tmp_path)
    (tmp_path / "secret").write_text("outside")
    (directory / "a.py").symlink_to("/etc/passwd")
    (directory / "b.py").symlink_to("../secret")
    (directory / "c").symlink_to("..")
    (directory / "d.py").symlink_to("__init__.py")
    (directory / "e.py").symlink_to("nowhere")
    (directory / "inner").symlink_to(".")
    os.mkfifo(directory / "f")
    (scanned,) = scan_path(directory)
    found = {item.path: item.rule for item in scanned.report.findings if "FILE" in item.rule}
    assert found == {
        "a.py": "KG-FILE-010",
        "b.py": "KG-FILE-010",
        "c": "KG-FILE-010",
        "e.py": "KG-FILE-017",
        "f": "KG-FILE-017",
    }
    assert "d.py" in scanned.report.files
    assert not scanned.report.complete


def test_names_that_cannot_be_kept_apart_are_left_out_and_told(tmp_path: Path) -> None:
    for name in ("a.py", "A.py", "b\n.py", "c\\d.py"):
        (tmp_path / name).write_text("x = 1\n")
    (scanned,) = scan_path(tmp_path)
    assert sorted(scanned.report.files) == ["A.py"]
    assert rules_of(scanned.report) == {"KG-FILE-015"}
    assert {item.path for item in scanned.report.findings} == {"a.py", "b\\x0a.py", "c\\d.py"}


def test_a_wheel_is_unpacked_by_numbers_and_scanned(tmp_path: Path) -> None:
    wheel = tmp_path / "relu-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as opened:
        for path, data in FILES.items():
            opened.writestr(f"relu/{path}", data)
        opened.writestr("../../escape.py", "x = 1\n")
    (scanned,) = scan_path(wheel)
    assert sorted(scanned.report.files) == [f"relu/{path}" for path in sorted(FILES)]
    assert rules_of(scanned.report, "../../escape.py") == {"KG-FILE-015"}
    assert list(tmp_path.iterdir()) == [wheel]


def test_an_archive_that_lies_about_its_sizes_is_refused(tmp_path: Path) -> None:
    wheel = tmp_path / "bomb.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("a.py", b"#" * 1_000_000)
    data = bytearray(wheel.read_bytes())
    at = data.rindex(b"PK\x01\x02")
    data[at + 24 : at + 28] = (10).to_bytes(4, "little")  # size in the central directory
    wheel.write_bytes(data)
    with pytest.raises(InvalidInput, match=r"cannot|unpacks|can be read"):
        scan_path(wheel)


def test_a_library_with_an_archive_behind_it_is_a_library(tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("a.py", "x = 1\n")
    library = tmp_path / "lib.so"
    library.write_bytes(FILES["lib.so"] + archive.read_bytes())
    (scanned,) = scan_path(library)
    assert list(scanned.report.files) == ["lib.so"]


def test_what_is_not_there_cannot_be_scanned(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no file or directory"):
        scan_path(tmp_path / "nowhere")
    with pytest.raises(InvalidInput, match="no file to scan"):
        scan_path(tmp_path)


def test_facts_can_be_written_whatever_a_library_calls_itself() -> None:
    library = build_library("int f(void) { return 0; }", "-Wl,-soname,library.so")
    odd = library.replace(b"library.so", b"\xff\xfe\xed\xa0\x80yy.so")
    assert odd != library
    report = scan_bytes({"a.so": odd})
    facts: dict[str, Any] = json.loads(report.to_bytes())["files"]["a.so"]
    assert facts["host"]["soname"] == r"\xff\xfe\xed\xa0\x80yy.so"
    assert report.complete


def test_a_tree_of_too_many_files_is_scanned_directory_by_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one/a.py", "one/b.py", "two/inner/c.py", "two/d.py", "top.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("import os\nos.system('id')\n")
    assert [item.name for item in scan_path(tmp_path)] == ["."]
    monkeypatch.setattr(paths, "MAX_FILES", 4)
    scanned = scan_path(tmp_path)
    assert {item.name: sorted(item.report.files) for item in scanned} == {
        ".": ["top.py"],
        "one": ["a.py", "b.py"],
        "two": ["d.py", "inner/c.py"],
    }
    assert all(item.report.complete for item in scanned)


def test_what_is_beyond_the_limit_of_one_directory_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        (tmp_path / f"{number}.py").write_text("x = 1\n")
    monkeypatch.setattr(collection, "MAX_FILES", 2)
    (scanned,) = scan_path(tmp_path)
    assert sorted(scanned.report.files) == ["0.py", "1.py"]
    assert [(item.rule, item.path) for item in scanned.report.findings] == [("KG-SCAN-002", "2.py")]
    assert not scanned.report.complete
