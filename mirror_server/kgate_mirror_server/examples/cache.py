"""Folders that are made once: whole, by one process at a time, and checked before every reuse.

The check compares names and sizes, enough against an interrupted clean-up or a stray file. It is
no defence against an attacker who can write to the cache.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kgate_core.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_INVENTORY: Final = ".inventory.json"
_log: Final = logging.getLogger(__name__)


def default_cache(environ: Mapping[str, str]) -> Path:
    """Return `$XDG_CACHE_HOME/kgate/examples`, or the same below `~/.cache`.

    A relative `XDG_CACHE_HOME` is ignored, as the XDG base directory specification wants it.
    """
    base = Path(environ.get("XDG_CACHE_HOME", ""))
    if not base.is_absolute():
        base = Path(environ.get("HOME") or Path.home()) / ".cache"
    return base / "kgate" / "examples"


def make_once(cache: Path, name: str, make: Callable[[Path], None]) -> Path:
    """Return the folder `cache/name`, filled by `make` unless a whole one is there already.

    `make` works in a temporary folder that is renamed when it returned, so that a reader never
    sees half of it; a second process waits for the first. Raises what `make` raises, and
    InvalidInput if the cache cannot be written.
    """
    final = cache / name
    with _locked(cache, name):
        if _whole(final):
            return final
        work = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=cache))
        try:
            work.chmod(0o755)
            make(work)
            inventory = json.dumps(_sizes(work), indent=1, sort_keys=True)
            (work / _INVENTORY).write_text(inventory, encoding="utf-8")
            if final.exists():
                _log.warning("%s is not as it was built; building it again", final)
                shutil.rmtree(final)
            work.rename(final)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return final


@contextmanager
def _locked(cache: Path, name: str) -> Iterator[None]:
    try:
        cache.mkdir(parents=True, exist_ok=True)
        handle = os.open(cache / f".{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as exc:
        raise InvalidInput(
            f"the cache {cache} cannot be written: {exc.strerror}",
            hint="name another folder, or set XDG_CACHE_HOME",
        ) from exc
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _whole(folder: Path) -> bool:
    try:
        expected = json.loads((folder / _INVENTORY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    # Importing a kernel from here leaves bytecode behind; it is not part of the kernel.
    for leftover in folder.rglob("__pycache__"):
        shutil.rmtree(leftover, ignore_errors=True)
    return bool(_sizes(folder) == expected)


def _sizes(folder: Path) -> dict[str, int]:
    return {
        path.relative_to(folder).as_posix(): path.lstat().st_size
        for path in folder.rglob("*")
        if not path.is_dir() and path.name != _INVENTORY
    }
