from __future__ import annotations

import atexit
import os
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from kgate_client import process
from kgate_client.loader import check_name, sealed_roots

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], None]]:
    """Return what would run when the process ends."""
    found: list[Callable[[], None]] = []
    monkeypatch.setattr(atexit, "register", found.append)
    return found


def test_a_process_has_one_shim_made_at_first_use(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[Any] = []

    def build(environ: Any) -> Any:
        built.append(environ)
        return object()

    monkeypatch.setattr(process, "_made", [])
    monkeypatch.setattr(process, "build", build)

    assert process.current() is process.current()
    assert built == [os.environ]


@pytest.mark.parametrize(
    ("strictness", "stops", "falls_back"),
    [(0, False, False), (1, False, False), (2, True, True), (3, True, False)],
)
def test_modes_that_stop_and_the_one_that_falls_back(
    monkeypatch: pytest.MonkeyPatch, strictness: int, *, stops: bool, falls_back: bool
) -> None:
    pod: Any = SimpleNamespace(mode=lambda: SimpleNamespace(strictness=strictness))
    monkeypatch.setattr(process, "_made", [pod])

    assert (process.stops() is pod) is stops
    assert (process.falls_back() is pod) is falls_back


def test_what_the_environment_got_wrong_is_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    process.build(
        {
            "KGATE_MODE": "off",
            "KGATE_DISABLE": "1",
            "KGATE_TRUST_ROOT": str(tmp_path / "root.json"),
            "HOME": str(tmp_path),
        }
    )

    said = capsys.readouterr().err
    assert "KGATE_MODE='off' is not one of" in said
    assert "KGATE_DISABLE is ignored" in said


def test_private_copies_go_when_the_process_that_made_them_goes(
    exits: list[Callable[[], None]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    directory = process._private_directory()
    directory.mkdir()
    assert directory.parent == tmp_path

    monkeypatch.setattr(os, "getpid", lambda: -1)
    exits[0]()
    assert directory.is_dir()
    monkeypatch.undo()
    exits[0]()
    assert not directory.exists()


def test_without_any_temporary_directory_memory_is_used(
    exits: list[Callable[[], None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def none() -> str:
        raise FileNotFoundError

    monkeypatch.setattr(tempfile, "gettempdir", none)

    assert process._private_directory().parent == Path("/dev/shm")
    assert len(exits) == 1


def test_a_cache_that_others_can_change_is_not_written_to(
    exits: list[Callable[[], None]], tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    cache.mkdir(mode=0o700)
    assert process._sealed_store(cache).root == cache / "sealed"
    cache.chmod(0o770)
    shared = process._sealed_store(cache)
    assert shared.shared == cache / "sealed"
    assert shared.root.name.startswith("kgate-")
    assert process._sealed_store(None).shared is None


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("_relu_cuda_0001", ""),
        ("json", "standard library"),
        ("pytest", "loaded already"),
        ("pip", "installed here"),
        ("os.path", "not a module name"),
        ("class", "not a module name"),
        ("kérnel", "not a module name"),
    ],
)
def test_a_kernel_may_not_hide_what_can_be_imported(name: str, said: str) -> None:
    assert said in check_name(name)
    assert bool(check_name(name)) == bool(said)


def test_the_sealed_copies_of_this_process_are_known() -> None:
    assert all(Path(root).is_absolute() for root in sealed_roots())
