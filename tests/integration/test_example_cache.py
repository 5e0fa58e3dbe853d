"""Where the example kernels are kept and what they are made with."""

from __future__ import annotations

import threading
import time
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from kgate_core.digest import Digest
from kgate_core.errors import InvalidInput, UpstreamError
from kgate_mirror_server.examples import build_gelu_and_mul, default_cache
from kgate_mirror_server.examples.cache import make_once
from kgate_mirror_server.examples.toolchain import compile_cuda, find_toolchain
from kgate_mirror_server.examples.wheels import Wheel, unpack_wheels

LINUX = "x86_64-linux"


def fill(folder: Path) -> None:
    (folder / "package").mkdir()
    (folder / "package" / "file.py").write_text("x = 1\n")


def test_the_default_cache_follows_xdg() -> None:
    assert default_cache({"XDG_CACHE_HOME": "/c", "HOME": "/h"}) == Path("/c/kgate/examples")
    assert default_cache({"XDG_CACHE_HOME": "relative", "HOME": "/h"}) == Path(
        "/h/.cache/kgate/examples"
    )
    assert default_cache({}) == Path.home() / ".cache" / "kgate" / "examples"


def test_what_is_whole_is_not_built_again(tmp_path: Path) -> None:
    said: list[str] = []
    first = build_gelu_and_mul(tmp_path, native=False, cuda=False, progress=said.append)
    assert said == ["building kernels-community/gelu-and-mul torch-cpu"]
    second = build_gelu_and_mul(tmp_path, native=False, cuda=False, progress=said.append)
    assert second == first
    assert len(said) == 1
    assert [path.name for path in (first / "build").iterdir()] == ["torch-cpu"]


@pytest.mark.parametrize("harm", ["missing", "extra", "longer", "inventory"])
def test_what_is_not_whole_is_built_again(tmp_path: Path, harm: str) -> None:
    folder = make_once(tmp_path, "thing", fill)
    file = folder / "package" / "file.py"
    match harm:
        case "missing":
            file.unlink()
        case "extra":
            (folder / "package" / "extra.py").touch()
        case "longer":
            file.write_text("x = 11\n")
        case _:
            (folder / ".inventory.json").write_text("{")
    assert make_once(tmp_path, "thing", fill) == folder
    assert file.read_text() == "x = 1\n"
    assert [path.name for path in (folder / "package").iterdir()] == ["file.py"]


def test_bytecode_left_by_an_import_is_removed(tmp_path: Path) -> None:
    folder = make_once(tmp_path, "thing", fill)
    (folder / "package" / "__pycache__").mkdir()
    (folder / "package" / "__pycache__" / "file.pyc").touch()
    make_once(tmp_path, "thing", lambda _: pytest.fail("was built again"))
    assert [path.name for path in (folder / "package").iterdir()] == ["file.py"]


def test_a_build_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        fill(folder)
        raise InvalidInput("no compiler")

    with pytest.raises(InvalidInput):
        make_once(tmp_path, "thing", fail)
    assert [path.name for path in tmp_path.iterdir()] == [".thing.lock"]


def test_two_builders_at_once_build_once(tmp_path: Path) -> None:
    built: list[Path] = []

    def slowly(folder: Path) -> None:
        built.append(folder)
        time.sleep(0.2)
        fill(folder)

    threads = [
        threading.Thread(target=make_once, args=(tmp_path, "thing", slowly)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1
    assert (tmp_path / "thing" / "package" / "file.py").is_file()


def test_a_cache_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidInput, match="cannot be written"):
        make_once(tmp_path / "file", "thing", fill)


def test_a_machine_without_the_tools_is_told_which(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput, match="aarch64-linux"):
        find_toolchain("aarch64-linux")
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        with pytest.raises(InvalidInput, match=r"g\+\+ was not found"):
            find_toolchain(LINUX)
    with monkeypatch.context() as patch:
        patch.setattr("sysconfig.get_path", lambda _: str(tmp_path))
        with pytest.raises(InvalidInput, match=r"Python\.h is not in"):
            find_toolchain(LINUX)
    with monkeypatch.context() as patch:
        patch.setattr(metadata.Distribution, "version", "2.12.0")
        with pytest.raises(InvalidInput, match=r"2\.12\.0 is installed"):
            find_toolchain(LINUX)
    with monkeypatch.context() as patch:
        patch.setattr(metadata.Distribution, "discover", lambda **_: iter(()))
        with pytest.raises(InvalidInput, match="PyTorch is not installed"):
            find_toolchain(LINUX)


def test_a_compiler_that_fails_is_quoted(tmp_path: Path) -> None:
    toolchain = find_toolchain(LINUX)
    with pytest.raises(InvalidInput, match="no CUDA compiler"):
        compile_cuda(toolchain, tmp_path, "name")
    broken = tmp_path / "g++"
    broken.write_text("#!/bin/sh\necho 'out of disk' >&2\nexit 1\n")
    broken.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        with pytest.raises(InvalidInput, match="failed: out of disk"):
            find_toolchain(LINUX)


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wheel:
    """A wheel in a folder that pip takes for the only index."""
    links = tmp_path / "links"
    links.mkdir()
    path = links / "kgate_sample-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("kgate_sample/data.txt", "data")
        archive.writestr(
            "kgate_sample-1.0.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: kgate-sample\nVersion: 1.0\n",
        )
        archive.writestr("kgate_sample-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\n")
        archive.writestr("kgate_sample-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    return Wheel("kgate-sample==1.0", Digest.of(path.read_bytes()))


def test_a_pinned_wheel_is_unpacked_not_installed(tmp_path: Path, wheel: Wheel) -> None:
    unpack_wheels([wheel], tmp_path / "target")
    assert (tmp_path / "target" / "kgate_sample" / "data.txt").read_text() == "data"
    assert not [each for each in tmp_path.iterdir() if each.name.startswith(".wheels")]
    with pytest.raises(metadata.PackageNotFoundError):
        metadata.distribution("kgate-sample")


def test_a_wheel_of_another_digest_is_not_unpacked(tmp_path: Path, wheel: Wheel) -> None:
    with pytest.raises(UpstreamError, match=r"kgate-sample==1\.0 could not be downloaded"):
        unpack_wheels([Wheel(wheel.requirement, Digest("0" * 64))], tmp_path / "target")
    assert not (tmp_path / "target").exists()
