from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from kgate_core.digest import Digest
from tests.bundlekit import World
from tests.services import find_program
from tests.sitekit import CONNECTED, Site


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


ROOT = Path(__file__).parents[2]
POD = ("cryptography", "cffi", "pycparser")


def real_wheels(folder: Path, *, locked: bool) -> Path:
    """Build this tree's wheel and fetch what the lock names: all of it, or what a pod needs."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    wanted = ["--require-hashes", "-r", str(ROOT / "requirements" / "runtime.lock")]
    if not locked:
        wanted = [f"{name}=={importlib.metadata.version(name)}" for name in POD]
    fetch = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", str(folder)]
    subprocess.run([*fetch, "--only-binary=:all:", *wanted], check=True, capture_output=True)
    return folder


def installed(disc: Path, folder: Path, what: str) -> Path:
    """Follow INSTALL.txt without any network; returns the environment's programs."""
    check = ["sha256sum", "-c", "--quiet", "SHA256SUMS"]
    assert subprocess.run(check, cwd=disc, check=False).returncode == 0
    venv = [sys.executable, "-m", "venv", str(folder)]
    subprocess.run(venv, check=True, capture_output=True)
    pip = [str(folder / "bin" / "pip"), "install", "--quiet", "--no-index"]
    done = offline(*pip, "--find-links", str(disc / "wheels"), what)
    assert done.returncode == 0, done.stderr
    return folder / "bin"


def offline(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a network namespace of its own, in which not even loopback is up."""
    return subprocess.run(
        [find_program("unshare", "util-linux"), "-n", *command],
        capture_output=True, text=True, check=False, timeout=300,
        env={"PATH": os.defpath, "HOME": "/nonexistent", **variables},
    )  # fmt: skip


@pytest.mark.slow
def test_a_pod_gets_kgates_own_wheel_from_the_disc_and_verifies_with_it(tmp_path: Path) -> None:
    world = World.template(tmp_path)
    wheels = real_wheels(tmp_path / "wheels", locked=False)
    disc = tmp_path / "first"
    arguments = ("bundle", "bootstrap", "--wheels", str(wheels), "-o", str(disc))
    # Enough for a pod, not for a site: what is missing is named before the disc travels.
    assert world.connected.kgate(*arguments) == 1
    assert world.connected.kgate(*arguments, "--unchecked") == 0
    bin_folder = installed(disc, tmp_path / "venv", "kgate")
    cache = tmp_path / "pod"
    doctor = offline(
        str(bin_folder / "kgate"), "doctor",
        KGATE_TRUST_ROOT=str(disc / "sender-root.json"), KGATE_CACHE=str(cache),
    )  # fmt: skip
    assert "Traceback" not in doctor.stderr
    assert "sender-root.json" in doctor.stdout + doctor.stderr
    # Not verified without evidence, and said so: the pod's own verifier runs.
    verified = offline(
        str(bin_folder / "kgate"), "verify", str(world.connected.variant),
        KGATE_TRUST_ROOT=str(disc / "sender-root.json"), KGATE_CACHE=str(cache),
    )  # fmt: skip
    assert verified.returncode in {1, 3, 4}, verified.stderr
    assert "Traceback" not in verified.stderr


@pytest.mark.matrix
def test_a_whole_site_is_founded_from_the_disc_and_takes_a_bundle_in(tmp_path: Path) -> None:
    world = World.template(tmp_path)
    world.export()
    wheels = real_wheels(tmp_path / "wheels", locked=True)
    disc = tmp_path / "first"
    arguments = ("bundle", "bootstrap", "--wheels", str(wheels), "-o", str(disc))
    assert world.connected.kgate(*arguments) == 0
    kgate = str(installed(disc, tmp_path / "venv", "kgate[all]") / "kgate")
    new = tmp_path / "new"
    founded = offline(kgate, "init", str(new), "--no-passphrase", "--upstream", "./built")
    assert founded.returncode == 0, founded.stderr
    taken = offline(
        kgate, "bundle", "import", str(world.disc), "--sender-root",
        str(disc / "sender-root.json"), "--receipt-dir", str(tmp_path),
        "-c", str(new / "kgate.yaml"), "--json",
    )  # fmt: skip
    assert taken.returncode == 0, taken.stdout + taken.stderr
    assert json.loads(taken.stdout)["approved"] == 1
