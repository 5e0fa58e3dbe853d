"""The hooks, on stand-ins for the library's modules; the real library is in tests/threats."""

# ruff: noqa: ARG002, ARG005  # stand-ins keep the library's signatures
from __future__ import annotations

import importlib
import sys
from enum import Flag, auto
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from kgate_client import autoload, fallbacks, hook, process, wrappers
from kgate_client.asked import Asked
from kgate_client.blocked import KgateBlocked
from kgate_core.trust import Mode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kgate_client.request import Request


class FakePod:
    """Answers as the shim would, without looking at anything."""

    def __init__(self, mode: Mode) -> None:
        self._mode = mode
        self.requests: list[Request] = []
        self.blocks: list[tuple[str, str, str]] = []
        self.unreachable_because = ""
        self.kept: ModuleType | None = None

    def previous(self, asked: Asked, reason: str, message: str) -> ModuleType | None:
        return self.kept

    def previous_commit(self, asked: Asked) -> str | None:
        return None if self.kept is None else "c" * 40

    def mode(self) -> Mode:
        return self._mode

    def load(self, request: Request) -> ModuleType:
        self.requests.append(request)
        return request.library.load_ungated()

    def blocked(self, kernel: str, reason: str, message: str, *, asked: Asked) -> KgateBlocked:
        self.blocks.append((kernel, reason, message))
        return KgateBlocked(kernel, reason, message)

    def unreachable(self) -> str:
        return self.unreachable_because


class Fallback(Flag):
    NONE = 0
    NO_LAYER = auto()
    CANNOT_LOAD = auto()
    DEFAULT = NO_LAYER
    ALL = DEFAULT | CANNOT_LOAD


@pytest.fixture
def pod(monkeypatch: pytest.MonkeyPatch) -> FakePod:
    return _use(monkeypatch, Mode.ENFORCE)


@pytest.fixture(autouse=True)
def _closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hook, "_closed", [])


def _use(monkeypatch: pytest.MonkeyPatch, mode: Mode) -> FakePod:
    found = FakePod(mode)
    monkeypatch.setattr(process, "_made", [found])
    return found


def _module(name: str, **members: Any) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(members)
    return module


def _kernel(repo: str = "acme/relu", version: int | None = 1, revision: str = "") -> Any:
    pin = SimpleNamespace(version=version) if version else SimpleNamespace(revision=revision)
    return SimpleNamespace(repo_id=repo, version=pin)


def _fail(error: Exception) -> Callable[..., Any]:
    def function(*_: Any, **__: Any) -> Any:
        raise error

    return function


def test_the_gate_stands_where_every_load_ends(pod: FakePod) -> None:
    ran = []

    def import_from_path(variant_path: Path, deps: Any, repo_info: Any = None) -> ModuleType:
        ran.append((variant_path, deps, repo_info))
        return ModuleType("loaded")

    importer = _module("kernels.importer", _import_from_path=import_from_path)
    hook.attach(importer)
    hook.attach(importer)

    module = importer._import_from_path(Path("/v"), {}, repo_info="info")

    assert module.__name__ == "loaded"
    assert ran == [(Path("/v"), {}, "info")]
    assert [(r.asked, r.path, r.depends) for r in pod.requests] == [(Asked(), Path("/v"), ())]


def test_what_was_asked_travels_from_the_resolver_to_the_gate(
    pod: FakePod, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Location:
        def __init__(self, path: str, origin: Any = None) -> None:
            self.variant_path, self.origin = Path(path), origin

    class DepTreeNode:
        def __init__(self, location: Location) -> None:
            self.location = location

        def load(self) -> Any:
            return deps._import_from_path(self.location.variant_path, {})

    deps = _module(
        "kernels.deps",
        DepTreeNode=DepTreeNode,
        _import_from_path=lambda *_, **__: ModuleType("loaded"),
        resolve_kernel_tree=lambda api, kernel, backend, resolver: DepTreeNode(Location("/v")),
    )
    hook.attach(deps)

    resolved = deps.resolve_kernel_tree(None, _kernel("acme/relu", 2), None, None)
    resolved.load()
    DepTreeNode(Location("/installed", origin=resolved.location)).load()
    DepTreeNode(Location("/unknown")).load()
    named = deps.resolve_kernel_tree(
        api=None, kernel=_kernel("acme/relu", None, "main"), backend=None, resolver=None
    )
    named.load()

    assert [(str(r.path), r.asked) for r in pod.requests] == [
        ("/v", Asked("acme/relu", "v2")),
        ("/installed", Asked("acme/relu", "v2")),
        ("/unknown", Asked()),
        ("/v", Asked("acme/relu", "main")),
    ]


def test_a_note_about_one_path_says_nothing_about_another(pod: FakePod) -> None:
    def load(self: Any) -> Any:
        return gate(Path("/other"), {})

    gate = wrappers.gated(lambda *_, **__: ModuleType("loaded"))
    location = SimpleNamespace(variant_path=Path("/v"), _kgate_asked=Asked("acme/relu"))
    wrappers.carrying(load)(SimpleNamespace(location=location))

    assert pod.requests[0].asked == Asked()


def test_the_librarys_registry_is_used(pod: FakePod, monkeypatch: pytest.MonkeyPatch) -> None:
    registry: dict[Path, Any] = {}
    importer = _module(
        "kernels.importer",
        _loaded_kernels=registry,
        LoadedKernel=SimpleNamespace,
        Metadata=SimpleNamespace(read_from_file=str),
    )
    deps = _module("kernels.deps", use_kernel_deps=lambda deps: ("context", deps))
    monkeypatch.setitem(sys.modules, "kernels.importer", importer)
    monkeypatch.setitem(sys.modules, "kernels.deps", deps)
    library = wrappers._Kernels({"a": ModuleType("a")}, "info", lambda: ModuleType("x"))
    module = ModuleType("loaded")

    assert library.find(Path("/v")) is None
    library.register(Path("/v"), module, Path("/sealed"))

    assert library.find(Path("/v")) is module
    assert registry[Path("/v")].repo_info == "info"
    assert registry[Path("/v")].metadata == "/sealed/metadata.json"
    context: Any = library.context()
    assert context == ("context", library.deps)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("RepositoryNotFoundError", "not-found"),
        ("GatedRepoError", "gated"),
        ("ConnectError", "unreachable"),
        ("HfHubHTTPError", "unreachable"),
        ("ModuleNotFoundError", "import-error"),
        ("KeyError", "load-error"),
    ],
)
def test_every_failure_becomes_the_one_that_callers_understand(
    pod: FakePod, name: str, reason: str
) -> None:
    known = getattr(__builtins__, name, None) or __builtins__.get(name)  # type: ignore[attr-defined]  # module or dict
    error = known("failed") if known else type(name, (OSError,), {})("failed")
    get = fallbacks.converting(_fail(error))

    with pytest.raises(KgateBlocked) as caught:
        get(kernel=_kernel())

    assert caught.value.reason == reason
    assert caught.value.__cause__ is error
    assert pod.blocks[0][0] == "acme/relu@v1"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("could not verify publisher trust status", "untrusted-publisher"),
        ("Version 3 not found, available versions: 1", "version-not-found"),
        ("Cyclic kernel dependency", "not-resolved"),
    ],
)
def test_the_librarys_own_words_are_told_apart(pod: FakePod, text: str, reason: str) -> None:
    select = fallbacks.resolving(_fail(ValueError(text)))

    with pytest.raises(KgateBlocked) as caught:
        select(repo_id="acme/relu", revision=None, version=3, local_files_only=True)

    assert caught.value.reason == reason
    assert caught.value.kernel == "acme/relu@v3"


@pytest.mark.parametrize("mode", [Mode.OBSERVE, Mode.WARN])
def test_only_modes_that_refuse_change_errors(monkeypatch: pytest.MonkeyPatch, mode: Mode) -> None:
    _use(monkeypatch, mode)
    error = ValueError("as it was")

    for wrapped, arguments in (
        (fallbacks.converting(_fail(error)), {"kernel": _kernel()}),
        (fallbacks.resolving(_fail(error)), {"repo_id": "a/b", "revision": "main"}),
        (fallbacks.converting_layer(_fail(error)), {"repo": "a/b", "module_class": object}),
    ):
        with pytest.raises(ValueError, match="as it was"):
            wrapped(**arguments)


def test_the_version_of_before_stands_in_where_it_is_kept(pod: FakePod) -> None:
    pod.kept = ModuleType("before")
    error = ValueError("Version 3 not found, available versions: 1")

    assert fallbacks.converting(_fail(error))(kernel=_kernel()) is pod.kept
    resolved = fallbacks.resolving(_fail(error))(repo_id="a/b", revision=None, version=3)
    assert resolved == "c" * 40
    assert pod.blocks == []


def test_a_refusal_passes_as_it_is(pod: FakePod) -> None:
    refusal = KgateBlocked("a/b", "revoked", "m")

    for wrapped in (
        fallbacks.converting(_fail(refusal)),
        fallbacks.converting_layer(_fail(refusal)),
    ):
        with pytest.raises(KgateBlocked) as caught:
            wrapped(None, None)
        assert caught.value is refusal
    assert pod.blocks == []


def test_a_layers_failed_load_is_a_refusal_and_its_wrong_shape_is_not(pod: FakePod) -> None:
    def _validate_layer() -> None:
        raise TypeError("wrong shape")

    def get_layer(repo: Any, module_class: Any) -> Any:
        if module_class is None:
            _validate_layer()
        raise RuntimeError("CUDA driver version is insufficient\nmore")

    wrapped = fallbacks.converting_layer(get_layer)

    with pytest.raises(KgateBlocked, match="CUDA driver version is insufficient"):
        wrapped(SimpleNamespace(_repo_id="acme/relu"), object)
    with pytest.raises(TypeError, match="wrong shape"):
        wrapped(SimpleNamespace(_repo_id="acme/relu"), None)


def test_a_dead_endpoint_is_not_asked(pod: FakePod) -> None:
    pod.unreachable_because = "nobody there"
    hub = type("HubResolver", (), {})()
    chain = SimpleNamespace(resolvers=[SimpleNamespace(), hub])
    resolve = wrappers.noting(_fail(AssertionError("asked")))
    select = fallbacks.resolving(_fail(AssertionError("asked")))

    for resolver in (hub, chain):
        with pytest.raises(ConnectionError, match="nobody there"):
            resolve(api=None, kernel=_kernel(), backend=None, resolver=resolver)
    with pytest.raises(KgateBlocked, match="nobody there"):
        select(repo_id="a/b", revision=None, version=1, local_files_only=False)


def test_observe_asks_a_dead_endpoint_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    _use(monkeypatch, Mode.OBSERVE).unreachable_because = "nobody there"

    assert fallbacks.resolving(lambda *_, **__: "commit")("a/b", revision=None) == "commit"


def test_use_fallback_covers_a_kernel_that_cannot_be_loaded(
    pod: FakePod, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def kernelize_layer(module: Any, *, use_fallback: Any) -> None:
        seen.append(use_fallback)
        if module == "leaks":
            raise KgateBlocked("a/b", "unreachable", "m")

    wrapped = fallbacks.falling_back(kernelize_layer)
    kept = []
    library = _module("kernels.layer.layer", _replace_forward=lambda *a: kept.append(a))
    monkeypatch.setitem(sys.modules, "kernels.layer.layer", library)

    for flags in (Fallback.DEFAULT, Fallback.ALL, Fallback.NONE):
        wrapped("m", use_fallback=flags)
    wrapped("leaks", use_fallback=Fallback.DEFAULT)
    with pytest.raises(KgateBlocked):
        wrapped("leaks", use_fallback=Fallback.NONE)

    assert seen[:3] == [Fallback.ALL, Fallback.ALL, Fallback.NONE]
    assert kept == [("leaks", str)]


@pytest.mark.parametrize(
    ("mode", "flags"), [(Mode.STRICT, Fallback.DEFAULT), (Mode.OBSERVE, Fallback.ALL)]
)
def test_strict_falls_back_for_nobody(
    monkeypatch: pytest.MonkeyPatch, mode: Mode, flags: Fallback
) -> None:
    _use(monkeypatch, mode)
    kernelize_layer = fallbacks.falling_back(lambda module, *, use_fallback: use_fallback)

    assert kernelize_layer("m", use_fallback=Fallback.ALL) == flags


def test_a_cached_variant_is_found_although_others_are_missing(
    pod: FakePod, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Incomplete:
        def snapshot_download(self, *_: Any, **__: Any) -> str:
            raise FileNotFoundError("incomplete")

    def resolve(api: Any, repo_id: str, *, revision: str) -> str:
        return str(api.snapshot_download(repo_id, revision=revision))

    hub = _module("kernels.hf_hub", CACHE_DIR=None)
    constants = _module("huggingface_hub.constants", HF_HUB_CACHE=str(tmp_path))
    monkeypatch.setitem(sys.modules, "kernels.hf_hub", hub)
    monkeypatch.setitem(sys.modules, "huggingface_hub.constants", constants)
    wrapped = wrappers.reusing(resolve)
    folder = tmp_path / "kernels--acme--relu" / "snapshots" / "0"
    folder.mkdir(parents=True)

    assert wrapped(Incomplete(), "acme/relu", revision="0") == str(folder)
    with pytest.raises(FileNotFoundError, match="incomplete"):
        wrapped(Incomplete(), "acme/relu", revision="1")
    pod._mode = Mode.OBSERVE
    with pytest.raises(FileNotFoundError, match="incomplete"):
        wrapped(Incomplete(), "acme/relu", revision="0")


def test_an_empty_user_agent_is_taken_away_where_kgate_may_act(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    api = wrappers.repaired(lambda: SimpleNamespace(user_agent=""))

    _use(monkeypatch, Mode.OBSERVE)
    assert api().user_agent == ""
    _use(monkeypatch, Mode.ENFORCE)
    assert api().user_agent is None


def test_benchmark_scripts_run_only_where_nothing_is_enforced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    discover = wrappers.refusing_scripts(lambda path, cwd: ["ran"])

    _use(monkeypatch, Mode.WARN)
    assert discover(Path("b.py"), Path()) == ["ran"]
    _use(monkeypatch, Mode.STRICT)
    with pytest.raises(KgateBlocked, match="not signed"):
        discover(Path("b.py"), Path())


class SomeRepository:
    def load(self) -> str:
        return "loaded"


def test_an_unknown_library_is_closed_module_by_module(
    pod: FakePod, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hook, "installed_version", lambda: "99.1")
    there = _module("kernels.there", get_kernel=lambda repo_id: "loaded", get_kernel_dep=len)
    monkeypatch.setitem(sys.modules, "kernels.there", there)
    module = _module(
        "kernels.new",
        load_kernel=lambda repo_id: "loaded",
        Repository=SomeRepository,
        kernelize_layer=lambda module, *, use_fallback: use_fallback,
        constant=1,
    )
    monkeypatch.setattr(SomeRepository, "load", SomeRepository.load)

    hook.attach(module)

    ways: list[Callable[[], Any]] = [
        lambda: module.load_kernel("acme/relu"),
        lambda: there.get_kernel(repo_id="acme/relu"),
        lambda: module.Repository().load(),
    ]
    for refused in ways:
        with pytest.raises(KgateBlocked, match=r"kernels 99\.1 is not a version"):
            refused()
    assert there.get_kernel_dep([1]) == 1
    assert module.kernelize_layer("m", use_fallback=Fallback.DEFAULT) == Fallback.ALL
    assert {block[1] for block in pod.blocks} == {"unknown-client"}


def test_a_closed_library_works_where_nothing_is_enforced(monkeypatch: pytest.MonkeyPatch) -> None:
    _use(monkeypatch, Mode.OBSERVE)
    monkeypatch.setattr(hook, "installed_version", lambda: None)
    module = _module("kernels.new", load_kernel=lambda repo_id: f"loaded {repo_id}")

    hook.attach(module)

    assert module.load_kernel("acme/relu") == "loaded acme/relu"


def test_once_a_load_point_is_gone_everything_is_closed(pod: FakePod) -> None:
    hook.attach(_module("kernels.importer"))
    later = _module("kernels.load", get_kernel=lambda repo_id: "loaded")
    hook.attach(later)

    with pytest.raises(KgateBlocked, match="has no _import_from_path"):
        later.get_kernel("acme/relu")


def test_modules_without_a_seam_are_left_alone(pod: FakePod) -> None:
    module = _module("kernels.variants", get_kernel_variants=len)

    hook.attach(module)

    assert module.get_kernel_variants is len


def test_a_broken_shim_refuses_unless_it_only_observes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_made", [])
    monkeypatch.setattr(process, "build", _fail(ImportError("cryptography is missing")))
    gate = wrappers.gated(lambda *_, **__: "ungated")

    with pytest.raises(KgateBlocked, match="cryptography is missing"):
        gate(Path("/v"), {})
    monkeypatch.setenv("KGATE_MODE", "observe")
    assert gate(Path("/v"), {}) == "ungated"
    assert fallbacks.converting(lambda **_: "as before")() == "as before"


def test_a_hook_that_cannot_be_imported_stops_the_library_unless_observing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "kgate_client.hook", None)
    monkeypatch.delattr("kgate_client.hook")

    with pytest.raises(ImportError, match="kgate cannot start its gate"):
        autoload._hook(ModuleType("kernels"))
    monkeypatch.setenv("KGATE_MODE", "observe")
    autoload._hook(ModuleType("kernels"))


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Put a package named like the library on the path and list what gets hooked of it."""
    package = tmp_path / "kernels"
    package.mkdir()
    (package / "__init__.py").write_text("loader = __loader__\nspec = __spec__\n")
    (package / "deps.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    there = {name: sys.modules[name] for name in list(sys.modules) if name.startswith("kernels")}
    for name in there:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [
        finder for finder in sys.meta_path if not isinstance(finder, autoload._Finder)
    ])  # fmt: skip
    hooked: list[str] = []
    monkeypatch.setattr(hook, "attach", lambda module: hooked.append(module.__name__))
    yield hooked
    for name in list(sys.modules):
        if name.startswith("kernels"):
            del sys.modules[name]
    sys.modules.update(there)


def test_each_module_is_hooked_after_it_ran_and_after_each_reload(library: list[str]) -> None:
    assert autoload.start()
    assert autoload.start()
    assert autoload.active()
    found = importlib.import_module("kernels")
    deps = importlib.import_module("kernels.deps")
    importlib.reload(deps)

    assert library == ["kernels", "kernels.deps", "kernels.deps"]
    assert type(found.loader).__name__ == "SourceFileLoader"
    assert type(found.spec.loader).__name__ == "SourceFileLoader"
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("kernels.missing")


def test_a_library_that_is_there_already_is_hooked_at_once(
    library: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "kernels.deps", ModuleType("kernels.deps"))

    autoload.start()

    assert library == ["kernels.deps"]


def test_the_shim_can_be_switched_off_where_no_root_is_pinned(
    library: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KGATE_DISABLE", "1")
    monkeypatch.delenv("KGATE_TRUST_ROOT", raising=False)
    assert not autoload.start()
    assert not autoload.active()
    monkeypatch.setenv("KGATE_TRUST_ROOT", "/etc/kgate/root.json")
    assert autoload.start()


def test_the_wrapped_loader_still_answers_for_the_real_one(library: list[str]) -> None:
    autoload.start()
    spec = next(f for f in sys.meta_path if isinstance(f, autoload._Finder)).find_spec("kernels")

    assert spec is not None
    assert spec.loader is not None
    assert "loader = __loader__" in spec.loader.get_source("kernels")  # type: ignore[attr-defined]  # a file's loader
    assert autoload._Finder().find_spec("json") is None
