"""What of a delegated model repository may be served, by its paths and its configuration.

T53 and T58 in docs/threat-model.md: code in a model repository is refused in strict lanes unless
the repository is allowed to carry some, and a repository of built kernels is no model anywhere.
Pure: who asks and where the bytes come from is `delegate`'s business.
"""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final

from kgate_core.errors import InvalidInput
from kgate_core.kernel import Variant

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kgate_mirror_server.serve.settings import DelegateSettings

_CODE: Final = frozenset({".py", ".pyc", ".so", ".sh", ".ipynb"})
_PICKLE: Final = frozenset(
    {".pkl", ".pickle", ".pt", ".pth", ".bin", ".ckpt", ".joblib", ".dill", ".npy", ".npz", ".mar"}
)
CONFIGS: Final = frozenset(
    {"config.json", "tokenizer_config.json", "processor_config.json", "preprocessor_config.json"}
)
"""Files in which `auto_map` makes transformers import the repository's own code."""
MAX_CONFIG: Final = 4 * 1024 * 1024  # bytes of a configuration that is looked into


def risk_of(path: str) -> str | None:
    """Return what a file of this name can do when it is loaded, or None."""
    name = path.rpartition("/")[2].lower()
    suffix = name[name.rfind(".") :] if "." in name else ""
    if suffix in _CODE:
        return "is code"
    return "may be a pickle, which runs code when it is read" if suffix in _PICKLE else None


def names_code(config: bytes) -> bool:
    """Return whether a configuration names code to import; one that cannot be read counts so."""
    try:
        return _has_key(json.loads(config), "auto_map")
    except (ValueError, RecursionError):
        return True


def is_kernel_build(entries: Iterable[Any]) -> bool:
    """Return whether a `build` folder with these tree entries holds kernel variants."""
    for entry in entries:
        path = entry.get("path") if isinstance(entry, dict) else None
        if isinstance(path, str) and path.startswith("build/"):
            try:
                Variant.parse(path.removeprefix("build/").partition("/")[0])
            except InvalidInput:
                continue
            return True
    return False


def in_build(path: str) -> bool:
    """Return whether a path lies where kernels keep their builds."""
    return path == "build" or path.startswith("build/")


def is_strict(settings: DelegateSettings, lane: str, repo: str) -> bool:
    """Return whether code of this repository is refused in this lane."""
    allowed = any(fnmatchcase(repo, pattern) for pattern in settings.code_allowed)
    return lane in settings.strict_lanes and not allowed


def without_xet(value: Any) -> Any:  # noqa: ANN401  # JSON has no static shape
    """Return a JSON value without what would send clients to another data plane."""
    match value:
        case dict():
            return {
                key: without_xet(item)
                for key, item in value.items()
                if not key.lower().startswith("xet")
            }
        case list():
            return [without_xet(item) for item in value]
        case _:
            return value


def _has_key(value: Any, name: str) -> bool:  # noqa: ANN401  # as above
    match value:
        case dict():
            return name in value or any(_has_key(item, name) for item in value.values())
        case list():
            return any(_has_key(item, name) for item in value)
        case _:
            return False
