from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest

from kgate_core.digest import Digest
from tests.sitekit import CONNECTED, Site

if TYPE_CHECKING:
    from pathlib import Path


def make_wheel(folder: Path) -> Path:
    """Write a wheel that bears kgate's name and holds one module."""
    folder.mkdir(parents=True)
    info = "kgate-9.9.dist-info"
    files = {
        "kgate_sample.py": b"ANSWER = 42\n",
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: kgate\nVersion: 9.9\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(
        f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()}"
        f",{len(data)}\n"
        for name, data in files.items()
    )
    path = folder / "kgate-9.9-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
        archive.writestr(f"{info}/RECORD", f"{record}{info}/RECORD,,\n")
    return path


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site.found(tmp_path / "site", CONNECTED)


def test_the_first_disc_installs_without_a_network_and_brings_the_root(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_wheel(tmp_path / "wheels")
    disc = tmp_path / "disc"
    arguments = ("bundle", "bootstrap", "--wheels", str(tmp_path / "wheels"), "-o", str(disc))
    assert site.kgate(*arguments, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    # What two people compare, and what a shell checks without kgate.
    assert said["sums"] == str(Digest.of((disc / "SHA256SUMS").read_bytes()))
    check = ["sha256sum", "-c", "SHA256SUMS"]
    assert subprocess.run(check, cwd=disc, check=False, capture_output=True).returncode == 0
    assert (disc / "sender-root.json").read_bytes() == site.root.read_bytes()
    assert CONNECTED in (disc / "INSTALL.txt").read_text()
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps",
         "--find-links", str(disc / "wheels"), "--target", str(tmp_path / "there"), "kgate==9.9"],
        check=True,
    )  # fmt: skip
    assert (tmp_path / "there" / "kgate_sample.py").read_text() == "ANSWER = 42\n"
    # A changed file is found by the same shell command.
    (disc / "sender-root.json").write_bytes(b"{}")
    assert subprocess.run(check, cwd=disc, check=False, capture_output=True).returncode == 1


def test_without_kgate_among_the_wheels_it_says_how_to_get_them(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    arguments = ("bundle", "bootstrap", "--wheels", str(tmp_path / "empty"), "-o", str(tmp_path))
    assert site.kgate(*arguments) == 1
    assert "pip download" in capsys.readouterr().err


def test_a_disc_that_holds_something_is_left_alone(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_wheel(tmp_path / "wheels")
    arguments = ("bundle", "bootstrap", "--wheels", str(tmp_path / "wheels"), "-o", str(tmp_path))
    assert site.kgate(*arguments) == 1
    assert "is not empty" in capsys.readouterr().err
