"""Where kgate meets `kernels`: the load points of each supported version, and nothing else.

`autoload` calls `attach` for each of the library's modules right after it ran, also after a
reload. What a supported version looks like stands in one table per version; what is put in place
of its functions stands in `wrappers` and `fallbacks`. For a version that is not listed, or whose
load points are not where they should be, everything that could load a kernel is blocked.
"""

from __future__ import annotations

import importlib.metadata
import sys
from typing import TYPE_CHECKING, Any, Final

from kgate_client import earlier, fallbacks, wrappers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import ModuleType

    from kgate_client.wrappers import Function

    Patch = Callable[[ModuleType], None]

MARK: Final = "kgate-client"
"""Stands in the user agent of requests that are made beside the shim."""
_ORIGINAL: Final = "__kgate_original__"
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
        "discover_benchmark_classes",
    }
)
_FALLBACK_POINT: Final = "kernelize_layer"  # where a model's layer chooses between kernel and own

_closed: list[str] = []  # why nothing of this library may run, once that is so


class SeamMoved(Exception):  # noqa: N818  # control flow inside this module
    """A supported version does not look as its table says."""


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
        _close(module, f"kernels {version} is not a version that this kgate knows")
    elif _closed:
        _close(module, _closed[0])
    elif (patch := table.get(module.__name__)) is not None:
        try:
            patch(module)
        except (SeamMoved, AttributeError, TypeError) as exc:
            _close(module, f"kernels {version} does not look as expected ({exc})")


# The load points of kernels 0.17, module by module.


def _gate_import(module: ModuleType) -> None:
    """`_import_from_path` is where every load ends, whatever it began with."""
    _wrap(module, "_import_from_path", wrappers.gated)


def _hook_hub(module: ModuleType) -> None:
    # Lanes may show kernels only where the shim is. Set here, not in the environment: a child
    # process without the shim must not inherit the mark.
    constants = sys.modules.get("huggingface_hub.constants")
    if constants is not None and getattr(constants, "HF_HUB_USER_AGENT_ORIGIN", "") is None:
        constants.HF_HUB_USER_AGENT_ORIGIN = MARK  # type: ignore[attr-defined]  # a module's own
    _wrap(module, "_get_hf_api", wrappers.repaired)


def _hook_versions(module: ModuleType) -> None:
    _wrap(module, "_get_available_versions", wrappers.without_empty_versions)
    _wrap(module, "resolve_version_spec_as_ref", wrappers.following_lock)


def _hook_deps(module: ModuleType) -> None:
    _gate_import(module)
    _wrap(module, "resolve_kernel_tree", wrappers.noting)
    _wrap(_found(module, "DepTreeNode"), "load", wrappers.carrying)


def _hook_resolver(module: ModuleType) -> None:
    _wrap(module, "resolve_hub_cache_kernel", wrappers.reusing)


def _hook_load(module: ModuleType) -> None:
    _wrap(module, "resolve_kernel_tree", wrappers.noting)
    _wrap(module, "get_kernel_with_resolver", fallbacks.converting)


def _hook_func(module: ModuleType) -> None:
    _wrap(module, "get_kernel_with_resolver", fallbacks.converting)
    _wrap(module, "select_revision_or_version", fallbacks.resolving)


def _hook_layer(module: ModuleType) -> None:
    _hook_func(module)
    _wrap(module, "_get_layer_memoize", fallbacks.converting_layer)


def _hook_kernelize(module: ModuleType) -> None:
    _wrap(module, "kernelize_layer", fallbacks.falling_back)


def _hook_benchmark(module: ModuleType) -> None:
    """`kernels benchmark` runs scripts of a repository, which nobody signs."""
    _wrap(module, "discover_benchmark_classes", wrappers.refusing_scripts)


_KERNELS_0_17: Final[Mapping[str, Patch]] = {
    "kernels._versions": _hook_versions,
    "kernels.hf_hub": _hook_hub,
    "kernels.importer": _gate_import,
    "kernels.deps": _hook_deps,
    "kernels.load": _hook_load,
    "kernels.resolver": _hook_resolver,
    "kernels.layer.layer": _hook_layer,
    "kernels.layer.func": _hook_func,
    "kernels.layer.kernelize": _hook_kernelize,
    "kernels.cli.benchmark": _hook_benchmark,
}


# Those of kernels 0.13 to 0.16: everything meets in `kernels.utils`.


def _hook_utils(module: ModuleType) -> None:
    _wrap(module, "_import_from_path", earlier.gated)
    for name in ("get_kernel", "get_local_kernel", "get_locked_kernel", "load_kernel"):
        _wrap(module, name, earlier.asking)


def _hook_earlier_versions(module: ModuleType) -> None:
    _wrap(module, "resolve_version_spec_as_ref", wrappers.following_lock)


def _hook_earlier_func(module: ModuleType) -> None:
    _wrap(module, "select_revision_or_version", fallbacks.resolving)


def _hook_earlier_layer(module: ModuleType) -> None:
    _hook_earlier_func(module)
    _wrap(module, "_get_layer_memoize", fallbacks.converting_layer)


def _hook_earlier_kernelize(module: ModuleType) -> None:
    _wrap(module, "kernelize_layer", earlier.falling_back)


_KERNELS_0_13: Final[Mapping[str, Patch]] = {
    "kernels._versions": _hook_earlier_versions,
    "kernels.utils": _hook_utils,
    "kernels.layer.layer": _hook_earlier_layer,
    "kernels.layer.func": _hook_earlier_func,
    "kernels.layer.kernelize": _hook_earlier_kernelize,
    "kernels.cli.benchmark": _hook_benchmark,
}
_TABLES: Final[Mapping[str, Mapping[str, Patch]]] = {
    "0.13": _KERNELS_0_13,
    "0.14": _KERNELS_0_13,
    "0.15": _KERNELS_0_13,
    "0.16": _KERNELS_0_13,
    "0.17": _KERNELS_0_17,
}


def _found(owner: ModuleType | type, name: str) -> Any:  # noqa: ANN401  # the library's own
    found = vars(owner).get(name)
    if found is None:
        raise SeamMoved(f"{owner.__name__} has no {name}")
    return found


def _wrap(owner: ModuleType | type, name: str, wrapper: Callable[[Function], Function]) -> None:
    original = _found(owner, name)
    if hasattr(original, _ORIGINAL):
        return  # imported from a module that is hooked already
    wrapped = wrapper(original)
    setattr(wrapped, _ORIGINAL, original)
    setattr(owner, name, wrapped)


def _close(module: ModuleType, because: str) -> None:
    """Block this module, every other one that is there and every one that comes."""
    if not _closed:
        _closed.append(because)
        for name, other in list(sys.modules.items()):
            if name.partition(".")[0] == "kernels" and other is not None:
                _block(other, because)
    _block(module, because)


def _block(module: ModuleType, because: str) -> None:
    """Replace every load point that a module holds, so that nothing unknown is executed."""
    for name, value in list(vars(module).items()):
        if name in _LOAD_POINTS and callable(value):
            setattr(module, name, _blocked(value, because))
        elif name == _FALLBACK_POINT and callable(value):
            _wrap(module, name, fallbacks.falling_back)
        elif isinstance(value, type) and name.endswith("Repository"):
            load = vars(value).get("load")
            if load is not None:
                type.__setattr__(value, "load", _blocked(load, because))


def _blocked(function: Function, because: str) -> Function:
    original: Function = getattr(function, _ORIGINAL, function)
    blocked = wrappers.blocking(original, because=because)
    setattr(blocked, _ORIGINAL, original)
    return blocked
