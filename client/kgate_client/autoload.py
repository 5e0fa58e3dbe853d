"""Starts the shim: waits for the import of `kernels` and hooks its modules as they appear.

A `.pth` file imports this in every interpreter of the environment, so it uses the standard
library only, imports next to nothing and does nothing else. It does not decide, read files or
talk to anybody: all that can fail happens inside the gate, when a kernel is loaded.
"""

import os
import sys

TYPE_CHECKING = False  # `typing` would cost more than this whole module
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.abc import Loader
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

_HOOKED = "kernels"
_WATCHED = "torch"  # every process that could run GPU code imports it
_TRUE = {"1", "true", "yes", "on"}


class _HookingLoader:
    """Runs a module as its own loader would, then hooks it; reloads come here again."""

    def __init__(self, loader: "Loader") -> None:
        self._loader = loader

    def create_module(self, spec: "ModuleSpec") -> "ModuleType | None":
        return self._loader.create_module(spec)

    def exec_module(self, module: "ModuleType") -> None:
        # From here on the module looks as if nobody had been in between.
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        _hook(module)

    def __getattr__(self, name: str) -> "Any":  # noqa: ANN401  # the loader's own attributes
        return getattr(self._loader, name)


class _Finder:
    """Finds `kernels`, its submodules and `torch` through the other finders, and nothing else."""

    def find_spec(
        self,
        name: str,
        path: "Sequence[str] | None" = None,
        target: "ModuleType | None" = None,
    ) -> "ModuleSpec | None":
        if not _matters(name):
            return None
        for finder in sys.meta_path:
            if finder is self or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                if spec.loader is not None and hasattr(spec.loader, "exec_module"):
                    spec.loader = _HookingLoader(spec.loader)  # type: ignore[assignment]  # duck
                return spec
        return None


def _matters(name: str) -> bool:
    return name == _WATCHED or name.partition(".")[0] == _HOOKED


def _hook(module: "ModuleType") -> None:
    if module.__name__ == _WATCHED:
        _watch()
        return
    try:
        from kgate_client import hook
    except Exception as exc:
        if os.environ.get("KGATE_MODE") == "observe":
            return
        raise ImportError("kgate cannot start its gate, so kernels may not be loaded") from exc
    hook.attach(module)


def _watch() -> None:
    try:
        from kgate_client import watch

        watch.start()
    except Exception:  # noqa: BLE001, S110  # torch must import; the load points are hooked all the same
        pass


def start() -> bool:
    """Install the finder once and hook what is there already; False where it is switched off.

    `KGATE_DISABLE` counts only where no trust root is pinned: a pinned root may hold signed floors.
    """
    off = os.environ.get("KGATE_DISABLE", "").lower() in _TRUE
    if off and not os.environ.get("KGATE_TRUST_ROOT"):
        return False
    if not active():
        sys.meta_path.insert(0, _Finder())
        for name, module in list(sys.modules.items()):
            if _matters(name):
                _hook(module)
    return True


def active() -> bool:
    """Return whether this interpreter watches for `kernels`."""
    return any(isinstance(finder, _Finder) for finder in sys.meta_path)


start()
