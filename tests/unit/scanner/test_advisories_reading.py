from __future__ import annotations

import io
import json
import stat
import zipfile
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest

from kgate_core.errors import IntegrityError, InvalidInput, NotFound
from kgate_core.evidence import Severity
from kgate_scanner.advisories import collecting
from kgate_scanner.advisories.collecting import collect
from kgate_scanner.advisories.documents import read_document
from kgate_scanner.advisories.prose import parse_prose, parse_vers
from kgate_scanner.advisories.severities import severity_of_vector
from kgate_scanner.advisories.versions import Range, Within, parse_version
from tests.feedkit import csaf, osv, write_folder, write_zip

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("CUDA Toolkit", "NVIDIA", "nvJPEG")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("All versions prior to CUDA Toolkit 12.9 Update 1", Range(fixed=(12, 9, 1))),
        ("All versions prior to CUDA Toolkit v12.4U1", Range(fixed=(12, 4, 1))),
        ("All versions prior to CUDA\u00a0Toolkit 13.0", Range(fixed=(13, 0))),
        ("All versions prior to nvJPEG 25.03", Range(fixed=(25, 3))),
        ("versions up to and including 12.2", Range(last=(12, 2))),
        ("12.2 and earlier", Range(last=(12, 2))),
        ("11.0 through 11.8", Range((11, 0), None, (11, 8))),
        ("11.0 and later", Range((11, 0))),
        ("CUDA Toolkit 12.4", Range((12, 4), None, (12, 4))),
        ("All versions", Range()),
        ("< 12.6", Range(fixed=(12, 6))),
    ],
)
def test_sentences_about_versions_are_read(text: str, expected: Range) -> None:
    assert parse_prose(text, NAMES) == expected


@pytest.mark.parametrize(
    "text",
    [
        "All versions prior to nvJPEG2000 v0.7.x",
        "All versions prior to the 13.0 release",
        "All versions prior to 12.0 except 11.8",
        "13.0 (Windows only)",
        "prior to 12.0 and 11.8",
        "",
        "x" * 300,
        "All versions prior to 12.9.1 Update 1",
    ],
)
def test_a_sentence_of_another_form_is_no_range(text: str) -> None:
    assert parse_prose(text, NAMES) is None


def test_vers_texts_are_read_if_they_are_one_span() -> None:
    assert parse_vers("vers:generic/>=11.0|<12.4") == Range((11, 0), (12, 4))
    assert parse_vers("vers:generic/12.4") == Range((12, 4), None, (12, 4))
    assert parse_vers("vers:generic/<12.4|>=12.5|<12.6") is None
    assert parse_vers("vers:generic/>11") is None
    assert parse_vers("12.4") is None


def test_versions_are_dotted_numbers_and_nothing_else() -> None:
    assert parse_version("2.8.0+cu128") == (2, 8, 0)
    assert parse_version("v12.4 Update 1") == (12, 4, 1)
    assert parse_version("2.8.0rc1") is None
    assert parse_version("1." * 40 + "1") is None
    assert Range(fixed=(12, 0)).holds((12,)) is Within.NO
    assert Range(last=(12, 9, 1)).holds((12, 9), coarse=True) is Within.UNKNOWN


@pytest.mark.parametrize(
    ("vector", "expected"),
    [
        ("CVSS:3.1/AV:L/AC:H/PR:N/UI:N/S:U/C:L/I:N/A:H", Severity.MEDIUM),  # 5.7
        ("CVSS:3.1/AV:L/AC:L/PR:N/UI:R/S:U/C:N/I:N/A:L", Severity.LOW),  # 3.3
        ("CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:C/C:H/I:H/A:H", Severity.CRITICAL),  # 10.0
        ("CVSS:3.0/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:N", Severity.INFO),
        ("CVSS:4.0/AV:N", None),
        ("CVSS:3.1/AV:N", None),
        (7.8, None),
    ],
)
def test_cvss_vectors_give_the_words_of_the_specification(
    vector: object, expected: Severity | None
) -> None:
    assert severity_of_vector(vector) is expected


def test_a_document_of_another_kind_is_named_and_passed_over() -> None:
    record = {"dataType": "CVE_RECORD", "cveMetadata": {}}

    assert read_document(json.dumps(record).encode(), what="x").skipped
    assert read_document(b"[]", what="x").skipped
    assert read_document(b"7", what="x").skipped


def test_a_folder_and_its_archive_are_the_same_feed(tmp_path: Path) -> None:
    documents = {"2026/a.json": osv("A"), "b.json": csaf()}
    folder = write_folder(tmp_path / "feed", documents)
    (folder / "README.md").write_text("not read")

    one, two = collect(folder), collect(write_zip(tmp_path / "feed.zip", documents))

    assert one.digest == two.digest
    assert [data for _, data in one.documents] == [data for _, data in two.documents]
    assert collect(folder / "b.json").digest != one.digest


def test_a_checksum_beside_a_document_must_agree(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, {"a.json": csaf()})
    good = sha256((folder / "a.json").read_bytes()).hexdigest()
    (folder / "a.json.sha256").write_text(f"{good}  a.json\n")
    collect(folder)

    (folder / "a.json.sha256").write_text("0" * 64)
    with pytest.raises(IntegrityError, match="is not what"):
        collect(folder)


@pytest.mark.parametrize("name", ["../a.json", "/etc/a.json", "x\\..\\a.json", "b/../../a.json"])
def test_an_archive_whose_names_lead_out_of_it_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInput, match="leads out"):
        collect(write_zip(tmp_path / "x.zip", {name: osv()}))


def test_links_are_refused_in_folders_and_archives(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.json").symlink_to("/etc/passwd")
    with pytest.raises(InvalidInput, match="link"):
        collect(folder)

    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        info = zipfile.ZipInfo("a.json")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(InvalidInput, match="link"):
        collect(path)


def test_a_zip_bomb_is_refused_before_it_unfolds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collecting, "MAX_DOCUMENT", 1000)
    monkeypatch.setattr(collecting, "MAX_TOTAL", 1500)
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.json", b" " * 10_000_000)
    with pytest.raises(InvalidInput, match="more than 1000 bytes"):
        collect(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.json", b"1" * 900)
        archive.writestr("b.json", b"2" * 900)
    with pytest.raises(InvalidInput, match="more than 1500 bytes"):
        collect(path)


def test_a_damaged_archive_and_a_missing_path_are_refused(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.json", json.dumps(osv()) * 50)
    path = tmp_path / "x.zip"
    data = bytearray(stream.getvalue())
    data[40:80] = bytes(40)
    path.write_bytes(data)
    with pytest.raises(InvalidInput, match="no archive"):
        collect(path)
    with pytest.raises(NotFound):
        collect(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInput, match="no JSON document"):
        collect(tmp_path / "empty")
