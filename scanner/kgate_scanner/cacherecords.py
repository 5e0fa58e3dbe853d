"""Reads the small JSON files in which compilers note what a cache entry is. Runs in the child.

Known are Triton's `NAME.json` (since 3.0) and `__grp__NAME.json`, and Helion's `*.best_config`. It
looks at one file; what lies beside it is for `caches`.
"""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from kgate_core.evidence import Facts

RECORDS: Final = frozenset({".json", ".best_config"})
_MAX_RECORD: Final = 1024**2  # bytes; Triton's have about one thousand
_MAX_TEXT: Final = 512  # characters of one value
_MAX_CHILDREN: Final = 100  # files of one entry; Triton writes eight
_OPTIONS: Final = (
    "num_warps",
    "num_stages",
    "num_ctas",
    "warp_size",
    "waves_per_eu",
    "maxnreg",
    "shared",
    "tmem_size",
    "global_scratch_size",
    "launch_cooperative_grid",
    "launch_pdl",
    "enable_fp_fusion",
    "debug",
)
"""What Triton compiled with and needs at the launch; the rest of a record is defaults."""


def read_record(data: memoryview, path: str) -> Facts:
    """Return what a record of a compile cache says, nothing if the file is none."""
    name = PurePosixPath(path)
    if name.suffix not in RECORDS or len(data) > _MAX_RECORD:
        return {}
    try:
        document = json.loads(bytes(data))
    except (ValueError, RecursionError):
        return {}
    if not isinstance(document, dict):
        return {}
    if name.suffix == ".best_config":
        return _helion(document)
    if name.name.startswith("__grp__"):
        return _group(document)
    return _triton(document)


def _triton(document: dict[str, Any]) -> Facts:
    target, name = document.get("target"), document.get("name")
    if not isinstance(target, dict) or not isinstance(name, str) or "num_warps" not in document:
        return {}
    options = {key: document[key] for key in _OPTIONS if _is_plain(document.get(key))}
    return {
        "compiler": "triton",
        "version": _text(document.get("triton_version")),
        "name": _text(name),
        "backend": _text(target.get("backend")),
        "arch": _text(target.get("arch")),
        "options": options,
    }


def _group(document: dict[str, Any]) -> Facts:
    children = document.get("child_paths")
    if isinstance(children, list):
        children = {str(name): str(name) for name in children}
    if not isinstance(children, dict):
        return {}
    listed = sorted(children.items(), key=str)[:_MAX_CHILDREN]
    return {
        "compiler": "triton",
        "children": {_text(name): _text(place) for name, place in listed},
    }


def _helion(document: dict[str, Any]) -> Facts:
    key, config = document.get("key"), document.get("config")
    fields = key.get("fields") if isinstance(key, dict) else None
    if not isinstance(fields, dict) or config is None:
        return {}
    return {
        "compiler": "helion",
        "backend": _text(fields.get("backend")),
        "hardware": _text(fields.get("hardware")),
        "runtime": _text(fields.get("runtime_name")),
    }


def _is_plain(value: object) -> bool:
    return isinstance(value, bool | int) and abs(value) < 1 << 31


def _text(value: object) -> str:
    return str(value)[:_MAX_TEXT] if isinstance(value, str | int) else ""
