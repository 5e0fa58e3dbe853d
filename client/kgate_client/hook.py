"""Where kgate meets `kernels`: the load points of each supported version, and nothing else.

`autoload` calls `attach` for each of the library's modules right after it ran, also after a
reload. What a supported version looks like stands in one table per version; for a version that is
not listed, or whose load points are not where they should be, everything that could load a kernel
is blocked. Neither torch nor cryptography is imported here before a kernel is asked for.
"""

# ruff: noqa: ANN401  # the library's own arguments and results pass through, whatever they are
from __future__ import annotations

import functools
import importlib.metadata
import logging
import os
import sys
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kgate_client.blocked import KgateBlocked

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager
    from types import ModuleType

    from kgate_client.asked import Asked
    from kgate_client.pod import Pod

    Patch = Callable[[ModuleType], None]
    Function = Callable[..., Any]

_log = logging.getLogger(__name__)
_ORIGINAL: Final = "__kgate_original__"
_NOTE: Final = "_kgate_asked"
# Names under which any version so far could execute a kernel.
_LOAD_POINTS: Final = frozenset(
    {
        "_import_from_path",
        "get_kernel",
        "get_kernel_with_resolver",
        "get_local_kernel",
        "get_locked_kernel",
        "import_from_path",
        "load_kernel",
        "package_name_from_repo_id_and_import",
    }
)


class SeamMoved(Exception):  # noqa: N818  # control flow inside this module
    """A supported version does not look as its table says."""


@dataclass(frozen=True, slots=True)
class _Noted:
    """What was asked for the variant at this path."""

    path: Path
    asked: Asked


_noted: ContextVar[_Noted | None] = ContextVar("kgate_noted", default=None)


def supported_versions() -> tuple[str, ...]:
    """Return the minor versions of `kernels` that have a table here."""
    return tuple(sorted(_TABLES))


def installed_version() -> str | None:
    """Return the version of `kernels` in this environment, None if it is not installed."""
    try:
        return importlib.metadata.version("kernels")
    except importlib.metadata.PackageNotFoundError:
        return None


def attach(module: ModuleType) -> None:
    """Set the hooks in one module of `kernels` that has just been executed."""
    version = installed_version() or "unknown"
    table = _TABLES.get(".".join(version.split(".")[:2]))
    if table is None:
        _block(module, f"kernels {version} is not a version that this kgate knows")
        return
    patch = table.get(module.__name__)
    if patch is None:
        return
    try:
        patch(module)
    except (SeamMoved, AttributeError, TypeError) as exc:
        _block(module, f"kernels {version} does not look as expected ({exc})")


# The load points of kernels 0.17, module by module.


def _gate_import(module: ModuleType) -> None:
    """`_import_from_path` is where every load ends, whatever it began with."""
    _wrap(module, "_import_from_path", _gated)


def _hook_deps(module: ModuleType) -> None:
    _gate_import(module)
    _wrap(module, "resolve_kernel_tree", _noting)
    _wrap(_found(module, "DepTreeNode"), "load", _carrying)


def _hook_load(module: ModuleType) -> None:
    _wrap(module, "resolve_kernel_tree", _noting)
    _wrap(module, "get_kernel_with_resolver", _converting)


def _hook_layer(module: ModuleType) -> None:
    _wrap(module, "get_kernel_with_resolver", _converting)
    _wrap(module, "select_revision_or_version", _converting)
    if hasattr(module, "_get_layer_memoize"):
        _wrap(module, "_get_layer_memoize", _converting_layer)


def _hook_kernelize(module: ModuleType) -> None:
    _wrap(module, "kernelize_layer", _falling_back)


def _hook_benchmark(module: ModuleType) -> None:
    """`kernels benchmark` runs scripts of a repository, which nobody signs."""
    _wrap(module, "discover_benchmark_classes", _refusing_scripts)


_KERNELS_0_17: Final[Mapping[str, Patch]] = {
    "kernels.importer": _gate_import,
    "kernels.deps": _hook_deps,
    "kernels.load": _hook_load,
    "kernels.layer.layer": _hook_layer,
    "kernels.layer.func": _hook_layer,
    "kernels.layer.kernelize": _hook_kernelize,
    "kernels.cli.benchmark": _hook_benchmark,
}
_TABLES: Final[Mapping[str, Mapping[str, Patch]]] = {"0.17": _KERNELS_0_17}


# What stands in the place of the library's functions.


def _gated(original: Function) -> Function:
    @functools.wraps(original)
    def import_from_path(
        variant_path: Path,
        deps: Mapping[str, ModuleType],
        repo_info: object = None,
    ) -> ModuleType:
        path = Path(variant_path)
        noted = _noted.get()

        def ungated() -> ModuleType:
            module: ModuleType = original(variant_path, deps=deps, repo_info=repo_info)
            return module

        pod = _pod()
        if pod is None:
            return ungated()
        from kgate_client.asked import Asked
        from kgate_client.pod import Request

        # A note about another path is not a note about this one.
        asked = noted.asked if noted is not None and noted.path == path else Asked()
        library = _Kernels(deps, repo_info, ungated)
        return pod.load(Request(asked, path, tuple(deps.values()), library))

    return import_from_path


@dataclass(frozen=True, slots=True)
class _Kernels:
    """The library, as the gate uses it (see `pod.Library`)."""

    deps: Mapping[str, ModuleType]
    repo_info: object
    load_ungated: Callable[[], ModuleType]

    def find(self, path: Path) -> ModuleType | None:
        loaded = sys.modules["kernels.importer"]._loaded_kernels.get(path)  # noqa: SLF001  # its registry
        return None if loaded is None else loaded.module

    def register(self, path: Path, module: ModuleType, sealed: Path) -> None:
        importer = sys.modules["kernels.importer"]
        importer._loaded_kernels[path] = importer.LoadedKernel(  # noqa: SLF001  # its registry
            metadata=importer.Metadata.read_from_file(sealed / "metadata.json"),
            module=module,
            repo_info=self.repo_info,
        )

    def context(self) -> AbstractContextManager[object]:
        context: AbstractContextManager[object] = sys.modules["kernels.deps"].use_kernel_deps(
            dict(self.deps)
        )
        return context


def _noting(original: Function) -> Function:
    """Note on the resolved location what was asked for; the location travels to the load."""

    @functools.wraps(original)
    def resolve_kernel_tree(*args: Any, **kwargs: Any) -> Any:
        kernel = kwargs["kernel"] if "kernel" in kwargs else args[1]
        _refuse_dead_endpoint(kwargs["resolver"] if "resolver" in kwargs else args[3])
        node = original(*args, **kwargs)
        # The location is a frozen dataclass: noted past its own protection, on this object only.
        object.__setattr__(node.location, _NOTE, _asked_of(kernel))
        return node

    return resolve_kernel_tree


def _carrying(original: Function) -> Function:
    """Carry the note from the location to the load point, through dependencies and threads."""

    @functools.wraps(original)
    def load(self: Any) -> Any:
        location = self.location
        asked = getattr(location, _NOTE, None) or getattr(
            getattr(location, "origin", None), _NOTE, None
        )
        path = getattr(location, "variant_path", None)
        noted = None if asked is None or path is None else _Noted(Path(path), asked)
        token = _noted.set(noted)
        try:
            return original(self)
        finally:
            _noted.reset(token)

    return load


def _converting(original: Function) -> Function:
    """Turn every failure to get a kernel into the one that callers take for "fall back"."""

    @functools.wraps(original)
    def get(*args: Any, **kwargs: Any) -> Any:
        try:
            return original(*args, **kwargs)
        except KgateBlocked:
            raise
        except Exception as exc:
            blocked = _conversion(exc, kwargs)
            if blocked is None:
                raise
            raise blocked from exc

    return get


def _converting_layer(original: Function) -> Function:
    """Do the same for a layer's repository; what the library's own checks say stays as it is."""

    @functools.wraps(original)
    def get_layer(repo: Any, module_class: Any) -> Any:
        try:
            return original(repo, module_class)
        except KgateBlocked:
            raise
        except Exception as exc:
            if _raised_by(exc, "_validate_layer", "_get_kernel_layer", "_get_kernel_func"):
                raise
            blocked = _conversion(exc, {"repo_id": getattr(repo, "_repo_id", "")})
            if blocked is None:
                raise
            raise blocked from exc

    return get_layer


def _falling_back(original: Function) -> Function:
    """Let `use_fallback=True` cover a kernel that cannot be loaded, as its name promises."""

    @functools.wraps(original)
    def kernelize_layer(module: Any, *, use_fallback: Any, **kwargs: Any) -> Any:
        kinds = type(use_fallback)
        wanted = kinds.DEFAULT in use_fallback and _enforcing()
        flags = use_fallback | kinds.CANNOT_LOAD if wanted else use_fallback
        try:
            return original(module, use_fallback=flags, **kwargs)
        except KgateBlocked:
            # The library asks for the repository's name, and so for its revision, before its own
            # `try`: a failure there comes out here.
            if kinds.CANNOT_LOAD not in flags:
                raise
            library = sys.modules["kernels.layer.layer"]
            library._replace_forward(module, type(module))  # noqa: SLF001  # what it does itself
            return None

    return kernelize_layer


def _refusing_scripts(original: Function) -> Function:
    @functools.wraps(original)
    def discover(script_path: Path, *args: Any, **kwargs: Any) -> Any:
        if _enforcing():
            raise KgateBlocked(
                str(script_path), "unsigned-script", "benchmark scripts of a repository are not run"
            )
        return original(script_path, *args, **kwargs)

    return discover


# The ways in which a load fails, as stable words; matched by name so that nothing is imported.
_REASONS: Final = (
    ("RepositoryNotFoundError", "not-found"),
    ("RevisionNotFoundError", "revision-not-found"),
    ("GatedRepoError", "gated"),
    ("DisabledRepoError", "gated"),
    ("LocalEntryNotFoundError", "not-cached"),
    ("EntryNotFoundError", "not-found"),
    ("ImportError", "import-error"),
    ("FileNotFoundError", "no-build"),
    ("ConnectError", "unreachable"),
    ("TimeoutException", "unreachable"),
    ("TimeoutError", "unreachable"),
    ("ConnectionError", "unreachable"),
    ("HfHubHTTPError", "unreachable"),
    ("OSError", "import-error"),
    ("ValueError", "not-resolved"),
)


def _reason_of(exc: BaseException) -> str:
    text = str(exc)
    if "publisher" in text and "trust" in text:
        return "untrusted-publisher"
    if text.startswith("Version ") and ("not found" in text or "not available" in text):
        return "version-not-found"
    names = {kind.__name__ for kind in type(exc).__mro__}
    return next((word for name, word in _REASONS if name in names), "load-error")


def _conversion(exc: Exception, kwargs: Mapping[str, Any]) -> KgateBlocked | None:
    """Return what to raise instead, None where the error is to be left alone."""
    if not _enforcing():
        return None
    pod = _pod()
    if pod is None:
        return None
    from kgate_client.asked import Asked

    kernel = kwargs.get("kernel")
    asked = Asked(str(kwargs.get("repo_id", ""))) if kernel is None else _asked_of(kernel)
    text = str(exc).strip().partition("\n")[0] or type(exc).__name__
    return pod.blocked(str(asked), _reason_of(exc), text, asked=asked)


def _refuse_dead_endpoint(resolver: object) -> None:
    """Fail at once where the client would retry a dead endpoint for 23 seconds per request."""
    if not _enforcing() or not _asks_the_hub(resolver):
        return
    pod = _pod()
    if pod is None or pod.channel is None:
        return
    problem = pod.channel.probe()
    if problem:
        raise ConnectionError(problem)


def _asks_the_hub(resolver: object) -> bool:
    inner = getattr(resolver, "resolvers", None) or [resolver]
    return any(type(item).__name__ in {"HubResolver", "LockedHubResolver"} for item in inner)


def _raised_by(exc: BaseException, *functions: str) -> bool:
    traceback = exc.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code.co_name in functions:
            return True
        traceback = traceback.tb_next
    return False


def _asked_of(kernel: Any) -> Asked:  # the library's KernelDependency
    from kgate_client.asked import Asked

    version = kernel.version
    number = getattr(version, "version", None)
    pin = getattr(version, "revision", None) if number is None else f"v{number}"
    return Asked(str(kernel.repo_id), pin)


def _pod() -> Pod | None:
    """Return this process's shim; None if it is broken and may not matter (observe)."""
    try:
        from kgate_client import pod

        return pod.current()
    except Exception as exc:
        if os.environ.get("KGATE_MODE", "").lower() == "observe":
            _log.debug("kgate is broken and only observes", exc_info=True)
            return None
        raise KgateBlocked("a kernel", "gate-broken", f"kgate does not work here ({exc})") from exc


def _enforcing() -> bool:
    pod = _pod()
    return pod is not None and str(pod.mode()) == "enforce"


def _found(module: ModuleType, name: str) -> Any:
    found = getattr(module, name, None)
    if found is None:
        raise SeamMoved(f"{module.__name__} has no {name}")
    return found


def _wrap(owner: Any, name: str, wrapper: Callable[[Function], Function]) -> None:
    original = _found(owner, name)
    if hasattr(original, _ORIGINAL):
        return  # imported from a module that is hooked already
    wrapped = wrapper(original)
    setattr(wrapped, _ORIGINAL, original)
    setattr(owner, name, wrapped)


def _block(module: ModuleType, because: str) -> None:
    """Replace every load point that a module holds, so that nothing unknown is executed."""
    for name, value in list(vars(module).items()):
        if name in _LOAD_POINTS and callable(value):
            _wrap(module, name, functools.partial(_blocking, because=because))
        elif isinstance(value, type) and name.endswith("Repository") and hasattr(value, "load"):
            _wrap(value, "load", functools.partial(_blocking, because=because))


def _blocking(original: Function, *, because: str) -> Function:
    @functools.wraps(original)
    def refuse(*args: Any, **kwargs: Any) -> Any:
        pod = _pod()
        if pod is None or str(pod.mode()) in {"observe", "warn"}:
            return original(*args, **kwargs)
        from kgate_client.asked import Asked

        named = kwargs.get("repo_id") or (args[0] if args else "a kernel")
        raise pod.blocked(str(named), "unknown-client", because, asked=Asked(str(named)))

    return refuse
