"""Imports a sealed variant: from its verified copy only, now and for every later submodule.

A path hook answers for directories below a sealed copy. It knows extension modules and sources,
and neither reads nor writes bytecode. A source is digested once more when it is compiled, so that
what runs is what the manifest lists even if somebody with this user's rights touched the copy.
Nothing is decided here about which variant may run.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import keyword
import os
import sys
from typing import TYPE_CHECKING

from kgate_core.digest import Digest
from kgate_core.errors import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path
    from types import CodeType, ModuleType

    from kgate_core.manifest import Manifest

_sealed: dict[str, Manifest] = {}
_ours: set[str] = set()


class _SealedSource(importlib.machinery.SourceFileLoader):
    """Compiles sources whose digest is in the manifest; bytecode does not exist for it."""

    def get_code(self, fullname: str) -> CodeType | None:
        path = self.get_filename(fullname)
        code: CodeType = self.source_to_code(self.get_data(path), path)
        return code

    def get_data(self, path: str) -> bytes:
        data = super().get_data(path)
        root = _root_of(path)
        if root is None:
            raise IntegrityError(f"{path} does not lie in a sealed copy")
        name = os.path.relpath(path, root).replace(os.sep, "/")
        entry = _sealed[root].by_path.get(name)
        if entry is None or Digest.of(data) != entry.digest:
            raise IntegrityError(f"{path} is not what its manifest lists")
        return data


def check_name(name: str) -> str:
    """Return why a kernel may not have this module name, or nothing if it may.

    `metadata.id` becomes a key of `sys.modules`: it must not hide anything that can be imported.
    """
    if not name.isidentifier() or not name.isascii() or keyword.iskeyword(name):
        return f"{name!r} is not a module name"
    if name in sys.stdlib_module_names:
        return f"{name!r} is a module of the standard library"
    if name in _ours:
        return ""
    if name in sys.modules:
        return f"{name!r} is a module that is loaded already"
    try:
        found = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        found = None
    return "" if found is None else f"{name!r} is a module that is installed here"


def import_sealed(
    sealed: Path,
    manifest: Manifest,
    *,
    name: str,
    package: str,
    context: AbstractContextManager[object],
) -> ModuleType:
    """Execute a sealed variant as the module `name`; raises what its own code raises.

    `package` is the inner directory of variants that are not flat; `context` is entered while the
    kernel's code runs (its dependencies are handed to it in there).
    """
    root = str(sealed)
    _sealed[root] = manifest
    _install()
    entry = "__init__.py" if "__init__.py" in manifest.by_path else f"{package}/__init__.py"
    if entry not in manifest.by_path:
        raise FileNotFoundError(f"No kernel module in {sealed}")
    path = str(sealed / entry)
    spec = importlib.util.spec_from_file_location(
        name,
        path,
        loader=_SealedSource(name, path),
        submodule_search_locations=[str((sealed / entry).parent)],
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"no import specification for {path}")
    module = importlib.util.module_from_spec(spec)
    # Another build may bear this name: its submodules must not become those of the new one.
    before = _take_away(name)
    sys.modules[name] = module
    _ours.add(name)
    try:
        with context:
            spec.loader.exec_module(module)
    except BaseException:
        _take_away(name)
        sys.modules.update(before)
        raise
    return module


def _take_away(name: str) -> dict[str, ModuleType]:
    names = [key for key in sys.modules if key == name or key.startswith(f"{name}.")]
    return {key: sys.modules.pop(key) for key in names}


def _install() -> None:
    if _path_hook not in sys.path_hooks:
        sys.path_hooks.insert(0, _path_hook)
        # Finders made before this hook existed would still look for bytecode.
        for path in [path for path in sys.path_importer_cache if _root_of(path) is not None]:
            del sys.path_importer_cache[path]


def _path_hook(path: str) -> importlib.machinery.FileFinder:
    if _root_of(path) is None:
        raise ImportError(f"{path} is not below a sealed copy")
    return importlib.machinery.FileFinder(
        path,
        (importlib.machinery.ExtensionFileLoader, importlib.machinery.EXTENSION_SUFFIXES),
        (_SealedSource, importlib.machinery.SOURCE_SUFFIXES),
    )


def _root_of(path: str) -> str | None:
    for root in _sealed:
        if path == root or path.startswith(root + os.sep):
            return root
    return None


def sealed_roots() -> Sequence[str]:
    """Return the sealed directories that this process runs code from."""
    return tuple(_sealed)
