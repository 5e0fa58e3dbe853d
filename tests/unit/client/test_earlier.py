"""The replacements for kernels 0.13 to 0.16, on stand-ins; the real ones are in tests/matrix."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from kgate_client import earlier, hook, process
from kgate_client.asked import Asked
from kgate_client.blocked import KgateBlocked
from kgate_core.trust import Mode
from tests.unit.client.test_hook import FakePod

COMMIT = "a" * 40


@pytest.fixture
def pod(monkeypatch: pytest.MonkeyPatch) -> FakePod:
    found = FakePod(Mode.ENFORCE)
    monkeypatch.setattr(process, "_made", [found])
    return found


class Library(ModuleType):
    """`kernels.utils` as those versions have it: public functions above one load point."""

    def __init__(self) -> None:
        super().__init__("kernels.utils")
        self.path: Any = Path("/v")
        self._loaded_kernels: dict[Path, Any] = {}
        self.LoadedKernel = SimpleNamespace
        self.Metadata = SimpleNamespace(read_from_file=str)

        def _import_from_path(variant_path: Path, repo_info: Any = None) -> ModuleType:
            return ModuleType(f"loaded {variant_path}")

        def get_kernel(repo_id: str, *_: Any, **__: Any) -> Any:
            return self._import_from_path(self.path)

        def get_local_kernel(repo_path: Path, *_: Any) -> Any:
            return self._import_from_path(variant_path=repo_path)

        def get_locked_kernel(repo_id: str, **_: Any) -> Any:
            return self.get_kernel(repo_id, revision="inner")

        def load_kernel(repo_id: str, **_: Any) -> Any:
            raise ValueError("not locked")

        self._import_from_path: Any = _import_from_path
        self.get_kernel: Any = get_kernel
        self.get_local_kernel: Any = get_local_kernel
        self.get_locked_kernel: Any = get_locked_kernel
        self.load_kernel: Any = load_kernel


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    module = Library()
    monkeypatch.setattr(hook, "installed_version", lambda: "0.16.2")
    monkeypatch.setattr(hook, "_closed", [])
    monkeypatch.setitem(sys.modules, "kernels.utils", module)
    hook.attach(module)
    return module


def test_what_was_asked_reaches_the_gate(pod: FakePod, library: Library) -> None:
    library.get_kernel("acme/relu", version=2)
    library.get_kernel("acme/relu", COMMIT)
    library.get_kernel("acme/relu", None, 3)
    library.get_kernel(repo_id="acme/relu")
    library.get_local_kernel(Path("/v"))
    library.get_locked_kernel("acme/locked")
    library._import_from_path(Path("/v"))

    assert [request.asked for request in pod.requests] == [
        Asked("acme/relu", "v2"),
        Asked("acme/relu", COMMIT),
        Asked("acme/relu", "v3"),
        Asked("acme/relu"),
        Asked("/v"),
        Asked("acme/locked"),
        Asked(),
    ]


def test_what_a_kernel_asks_for_while_it_runs_is_another_question(
    pod: FakePod, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = pod.load

    def load(request: Any) -> Any:
        if len(pod.requests) == 0:
            first(request)
            return library.get_kernel("acme/inner", version=1)
        return first(request)

    monkeypatch.setattr(pod, "load", load)

    library.get_kernel("acme/outer", version=1)

    assert [request.asked.repo for request in pod.requests] == ["acme/outer", "acme/inner"]


def test_the_oldest_load_point_names_a_module_first(pod: FakePod) -> None:
    gate = earlier.gated(lambda *_: ModuleType("loaded"))

    gate("relu", Path("/v"))

    assert pod.requests[0].path == Path("/v")


def test_the_registry_is_used_where_there_is_one(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernels = earlier._Kernels("info", lambda: ModuleType("x"))
    module = ModuleType("loaded")
    assert kernels.find(Path("/v")) is None
    kernels.register(Path("/v"), module, Path("/sealed"))
    assert kernels.find(Path("/v")) is module
    with kernels.context():
        pass

    bare = ModuleType("kernels.utils")
    monkeypatch.setitem(sys.modules, "kernels.utils", bare)
    kernels.register(Path("/v"), module, Path("/sealed"))
    assert kernels.find(Path("/v")) is None


def test_failures_become_refusals_in_enforce_only(pod: FakePod, library: Library) -> None:
    with pytest.raises(KgateBlocked, match="not locked"):
        library.load_kernel("acme/relu")
    pod._mode = Mode.WARN
    with pytest.raises(ValueError, match="not locked"):
        library.load_kernel("acme/relu")


def test_a_dead_endpoint_is_not_asked_by_those_who_would(
    pod: FakePod, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    pod.unreachable_because = "nobody there"
    monkeypatch.setenv("LOCAL_KERNELS", "acme/local=/v")

    with pytest.raises(KgateBlocked, match="nobody there"):
        library.get_kernel("acme/relu", version=1)
    library.get_kernel("acme/local", version=1)
    library.get_locked_kernel("acme/relu", local_files_only=True)
    library.get_local_kernel(Path("/v"))

    assert len(pod.requests) == 3


def test_use_fallback_covers_a_refusal(pod: FakePod, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = []
    layers = ModuleType("kernels.layer.layer")
    vars(layers)["_replace_forward"] = lambda *a: kept.append(a)
    monkeypatch.setitem(sys.modules, "kernels.layer.layer", layers)

    def kernelize_layer(module: Any, *, use_fallback: bool) -> None:
        if module == "refused":
            raise KgateBlocked("a/b", "revoked", "m")

    wrapped = earlier.falling_back(kernelize_layer)

    wrapped("fine", use_fallback=False)
    wrapped("refused", use_fallback=True)
    with pytest.raises(KgateBlocked):
        wrapped("refused", use_fallback=False)
    assert kept == [("refused", str)]


def test_a_broken_shim_that_observes_lets_them_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_made", [])
    monkeypatch.setattr(process, "build", lambda _: 1 / 0)
    monkeypatch.setenv("KGATE_MODE", "observe")

    assert earlier.gated(lambda _: "ungated")(Path("/v")) == "ungated"


def test_every_earlier_version_has_its_seams(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = ModuleType("kernels.layer.layer")
    kernelize = ModuleType("kernels.layer.kernelize")
    vars(layer).update(select_revision_or_version=len, _get_layer_memoize=len)
    vars(kernelize).update(kernelize_layer=len)

    for module in (layer, kernelize):
        hook.attach(module)

    assert vars(layer)["_get_layer_memoize"].__kgate_original__ is len
    assert vars(kernelize)["kernelize_layer"].__kgate_original__ is len
