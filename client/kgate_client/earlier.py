"""Replacements for the functions of kernels 0.13 to 0.16, where all loads meet in one module.

These versions have no resolver that a note could travel with: the public functions say what is
asked, and call the load point before they return. Their `kernelize` knows only whether to fall
back, and does not for a failed load.
"""

# ruff: noqa: ANN401  # the library's own arguments and results pass through, whatever they are
from __future__ import annotations

import contextlib
import functools
import os
import sys
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kgate_client.asked import Asked
from kgate_client.blocked import KgateBlocked, KgateRefusal
from kgate_client.fallbacks import instead, refuse_dead_endpoint
from kgate_client.process import falls_back, shim
from kgate_client.request import Request

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from types import ModuleType

    Function = Callable[..., Any]

_LIBRARY: Final = "kernels.utils"
_asking: ContextVar[Asked | None] = ContextVar("kgate_asking", default=None)


def gated(original: Function) -> Function:
    """Ask the gate where the library would execute a variant; 0.13 names a module first."""

    @functools.wraps(original)
    def import_from_path(*args: Any, **kwargs: Any) -> ModuleType:
        def ungated() -> ModuleType:
            module: ModuleType = original(*args, **kwargs)
            return module

        pod = shim()
        if pod is None:
            return ungated()
        given = kwargs.get("variant_path") or next(item for item in args if isinstance(item, Path))
        asked = _asking.get() or Asked()
        # What the kernel's own code asks for while it runs is another question.
        token = _asking.set(None)
        try:
            library = _Kernels(kwargs.get("repo_info"), ungated)
            return pod.load(Request(asked, Path(given), (), library))
        finally:
            _asking.reset(token)

    return import_from_path


@dataclass(frozen=True, slots=True)
class _Kernels:
    """The library, as the gate uses it (see `request.Library`); 0.13 keeps no registry."""

    repo_info: object
    load_ungated: Callable[[], ModuleType]

    def find(self, path: Path) -> ModuleType | None:
        loaded = getattr(sys.modules[_LIBRARY], "_loaded_kernels", {}).get(path)
        return None if loaded is None else loaded.module

    def register(self, path: Path, module: ModuleType, sealed: Path) -> None:
        library = sys.modules[_LIBRARY]
        registry = getattr(library, "_loaded_kernels", None)
        if registry is not None:
            registry[path] = library.LoadedKernel(
                metadata=library.Metadata.read_from_file(sealed / "metadata.json"),
                module=module,
                repo_info=self.repo_info,
            )

    def context(self) -> AbstractContextManager[object]:
        return contextlib.nullcontext()


def asking(original: Function) -> Function:
    """Note what a public function is asked for, and turn its failure into a fallback."""

    @functools.wraps(original)
    def get(*args: Any, **kwargs: Any) -> Any:
        asked = _read(original.__name__, args, kwargs)
        outermost = _asking.get() is None
        token = _asking.set(asked if outermost else _asking.get())
        try:
            if outermost and _asks_the_hub(original.__name__, asked, kwargs):
                refuse_dead_endpoint()
            return original(*args, **kwargs)
        except KgateRefusal:
            raise
        except Exception as exc:  # noqa: BLE001  # raised again as a refusal
            return instead(exc, asked)
        finally:
            _asking.reset(token)

    return get


def falling_back(original: Function) -> Function:
    """Let `use_fallback=True` cover a kernel that cannot be loaded."""

    @functools.wraps(original)
    def kernelize_layer(module: Any, *, use_fallback: Any, **kwargs: Any) -> Any:
        try:
            return original(module, use_fallback=use_fallback, **kwargs)
        except KgateBlocked:
            if not use_fallback or falls_back() is None:
                raise
            library = sys.modules["kernels.layer.layer"]
            return library._replace_forward(module, type(module))  # noqa: SLF001  # as it does itself

    return kernelize_layer


def _read(function: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Asked:
    first = args[0] if args else kwargs.get("repo_id", kwargs.get("repo_path", ""))
    if function == "get_local_kernel":
        return Asked(str(first))
    revision = kwargs.get("revision")
    version = kwargs.get("version")
    if function == "get_kernel":
        revision = args[1] if len(args) > 1 else revision
        version = args[2] if len(args) > 2 else version  # noqa: PLR2004  # its third argument
    pin = revision if version is None else f"v{version}"
    return Asked(str(first), None if pin is None else str(pin))


def _asks_the_hub(function: str, asked: Asked, kwargs: dict[str, Any]) -> bool:
    if function in {"get_local_kernel", "load_kernel"} or kwargs.get("local_files_only"):
        return False
    # Read as the library reads it: a kernel that is redirected to a directory asks nobody.
    return f"{asked.repo}=" not in os.environ.get("LOCAL_KERNELS", "")
