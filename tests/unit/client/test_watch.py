from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from kgate_client import autoload, process, watch
from kgate_client.blocked import KgateBlocked

CACHED = "/hf/hub/kernels--acme--relu/snapshots/0/build/torch-cpu/ops.so"


class _Pod:
    def __init__(self, strictness: int) -> None:
        self._strictness = strictness

    def mode(self) -> Any:
        return SimpleNamespace(strictness=self._strictness)

    def blocked(self, kernel: str, reason: str, message: str, *, asked: object) -> KgateBlocked:
        assert str(asked) == kernel
        return KgateBlocked(kernel, reason, message)


@pytest.mark.parametrize(
    ("event", "arguments"),
    [
        ("exec", (SimpleNamespace(co_filename=CACHED),)),
        ("import", ("ops", CACHED, None, None, None)),
        ("ctypes.dlopen", (CACHED,)),
        ("ctypes.dlopen", (CACHED.replace("snapshots", "blobs"),)),
    ],
)
def test_files_of_a_kernels_cache_folder_do_not_run(
    monkeypatch: pytest.MonkeyPatch, event: str, arguments: tuple[object, ...]
) -> None:
    monkeypatch.setattr(process, "_made", [_Pod(process.ENFORCE)])
    with pytest.raises(KgateBlocked) as caught:
        watch.audit(event, arguments)
    assert (caught.value.kernel, caught.value.reason) == ("acme/relu", "direct-load")

    monkeypatch.setattr(process, "_made", [_Pod(process.ENFORCE - 1)])
    watch.audit(event, arguments)


@pytest.mark.parametrize(
    ("event", "arguments"),
    [
        ("open", (CACHED, "r", 0)),
        ("exec", (SimpleNamespace(),)),
        ("import", ("json", None, None, None, None)),
        ("ctypes.dlopen", ("/usr/lib/libc.so.6",)),
        ("ctypes.dlopen", ("/home/u/kernels--mine/ops.so",)),
    ],
)
def test_nothing_else_is_looked_at(
    monkeypatch: pytest.MonkeyPatch, event: str, arguments: tuple[object, ...]
) -> None:
    monkeypatch.setattr(process, "_made", [])
    monkeypatch.setattr(process, "build", lambda _: pytest.fail("asked"))

    watch.audit(event, arguments)


def test_it_starts_once_and_never_keeps_torch_from_importing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    added: list[object] = []
    monkeypatch.setattr(sys, "addaudithook", added.append)
    monkeypatch.setattr(watch, "_started", [])

    autoload._hook(ModuleType("torch"))
    autoload._hook(ModuleType("torch"))
    assert added == [watch.audit]

    monkeypatch.setattr(watch, "start", lambda: 1 / 0)
    autoload._hook(ModuleType("torch"))
