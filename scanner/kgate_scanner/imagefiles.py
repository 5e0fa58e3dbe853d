"""Which files of a container image a scan is about: kernels whole, Python beside machine code.

An image holds some ten thousand Python files, nearly all of which never come near a GPU. Read are
those of packages that bring machine code of their own, and all of them if nothing else does. Names
are judged here, no bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kgate_core.errors import InvalidInput
from kgate_core.kernel import Variant

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_SOURCES: Final = (".py", ".pyc", ".pth")
_HOMES: Final = ("/site-packages/", "/dist-packages/")
_BUILD: Final = "build"
_METADATA: Final = "metadata.json"
_DEPTH: Final = 3  # names in build/<variant>/file


def is_source(name: str) -> bool:
    """Return whether a file is worth keeping although it holds no machine code."""
    return name.endswith(_SOURCES) or _variant(name) is not None


def chosen(places: Mapping[str, Path]) -> dict[str, Path]:
    """Return the files that a scan is about, of all that were kept."""
    bring = {_package(name) for name in places if not name.endswith(_SOURCES)}
    return {
        name: place
        for name, place in places.items()
        if not name.endswith(_SOURCES) or not bring or _package(name) in bring
    }


def split(places: Mapping[str, Path]) -> dict[Variant | None, dict[str, Path]]:
    """Return the files of each kernel variant by their names in it, and the rest under None."""
    named = {name: _variant(name) for name in places}
    whole = {
        variant
        for variant in named.values()
        if variant is not None and f"{_BUILD}/{variant.name}/{_METADATA}" in places
    }
    found: dict[Variant | None, dict[str, Path]] = {}
    for name, place in places.items():
        variant = named[name] if named[name] in whole else None
        inner = name if variant is None else name.split("/", 2)[2]
        found.setdefault(variant, {})[inner] = place
    return found


def _variant(name: str) -> Variant | None:
    parts = name.split("/", _DEPTH - 1)
    if len(parts) < _DEPTH or parts[0] != _BUILD:
        return None
    try:
        return Variant.parse(parts[1])
    except InvalidInput:
        return None


def _package(name: str) -> str:
    """Return the installed package that a file belongs to, else the directory that it is in."""
    for home in _HOMES:
        before, found, inside = f"/{name}".rpartition(home)
        if found:
            return f"{before}{home}{inside.partition('/')[0]}"
    variant = _variant(name)
    return f"{_BUILD}/{variant.name}" if variant else name.rpartition("/")[0]
