"""What an attacker does to a pod in the demo, carried out on its real cache."""

from __future__ import annotations

import importlib.util
import py_compile
import shutil
from typing import TYPE_CHECKING

from kgate_core.errors import KgateError

if TYPE_CHECKING:
    from pathlib import Path


def cached_variant(hub_cache: Path, repo: str) -> Path:
    """Return the variant directory that the stock client downloaded."""
    pattern = f"kernels--{repo.replace('/', '--')}/snapshots/*/build/*"
    found = sorted(hub_cache.glob(pattern))
    if not found:
        raise KgateError(f"the pod's cache holds no variant of {repo}")
    return found[0]


def tamper(variant: Path) -> str:
    """Change one byte of the native library, keeping its size; return the file's name."""
    library = next(variant.glob("*.so"))
    target = library.resolve()
    data = bytearray(target.read_bytes())
    data[len(data) // 2] ^= 0xFF
    target.chmod(0o644)
    target.write_bytes(data)
    return library.name


def plant_bytecode(variant: Path, marker: Path) -> str:
    """Put bytecode beside an untouched source that Python would run without comparing them.

    If it ever runs, it creates `marker`. Upstream's own digest leaves such files out.
    """
    source = variant / "layers.py"
    text = source.read_text(encoding="utf-8")
    evil = marker.with_name("evil.py")
    evil.write_text(f"open({str(marker)!r}, 'w').close()\n{text}", encoding="utf-8")
    target = importlib.util.cache_from_source(str(source))
    py_compile.compile(
        str(evil),
        cfile=target,
        dfile=str(source),
        doraise=True,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )
    evil.unlink()
    return target.rsplit("/", 1)[-1]


def copy_unsigned(built: Path, target: Path) -> Path:
    """Copy a built kernel to where a person would point LOCAL_KERNELS, changed a little."""
    shutil.copytree(built, target)
    for layers in target.glob("build/*/layers.py"):
        text = layers.read_text(encoding="utf-8")
        layers.write_text(text + "\n# a local change that nobody reviewed\n", encoding="utf-8")
    return target
