"""Kernel repositories for tests: copies of a good one, each spoiled in exactly one way.

Where the attacker would have signed or digested the change, so does the function: what is left to
find is the attack itself, not a clumsy digest.
"""

from __future__ import annotations

import importlib.util
import json
import py_compile
import shutil
import struct
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kgate_mirror_server.examples.metadata import METADATA, digest_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def copy_repo(source: Path, target: Path) -> Path:
    """Copy a repository, links as links, without bytecode; returns the copy."""
    ignore = shutil.ignore_patterns("__pycache__", "*.pyc")
    shutil.copytree(source, target, symlinks=True, ignore=ignore)
    return target


def variants(repo: Path) -> list[Path]:
    """Return the build variants of a repository, by name."""
    return sorted(path for path in (repo / "build").iterdir() if path.is_dir())


def library(variant: Path) -> Path:
    """Return the variant's shared library."""
    return next(variant.glob("*.so"))


def edit_metadata(variant: Path, **members: Any) -> None:
    """Replace members of `metadata.json`; underscores in names stand for dashes."""
    path = variant / METADATA
    document = json.loads(path.read_text(encoding="utf-8"))
    document |= {name.replace("_", "-"): value for name, value in members.items()}
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def redigest(variant: Path) -> None:
    """Make the metadata's own digest right again, as a publisher's build would."""
    edit_metadata(variant, digest=digest_of(variant))


def tamper(file: Path) -> None:
    """Change the file's last byte, keeping its size."""
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def plant_bytecode(variant: Path, code: str, module: str = "layers") -> Path:
    """Put bytecode that Python never compares with its source beside an untouched module.

    `code` runs when the module is imported; upstream's digest leaves such files out.
    """
    source = variant / f"{module}.py"
    target = Path(importlib.util.cache_from_source(str(source), optimization=""))
    _compile_unchecked(f"{code}\n{source.read_text(encoding='utf-8')}", source, target)
    return target


def plant_sourceless(variant: Path, code: str, module: str = "extra") -> Path:
    """Add a module that exists as bytecode only."""
    target = variant / f"{module}.pyc"
    _compile_unchecked(code, variant / f"{module}.py", target)
    return target


def _compile_unchecked(code: str, shown: Path, target: Path) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".py", encoding="utf-8") as file:
        file.write(code)
        file.flush()
        py_compile.compile(
            file.name,
            cfile=str(target),
            dfile=str(shown),
            doraise=True,
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )


def take_module_name(variant: Path, name: str = "json") -> None:
    """Give the kernel the name of another module, which loading it then replaces."""
    edit_metadata(variant, id=name)


def add_kernel_module(variant: Path, name: str = "gpu_helper.ko") -> Path:
    """Add a Linux kernel module, properly digested."""
    target = variant / name
    target.write_bytes(kernel_module())
    redigest(variant)
    return target


def truncate(file: Path, keep: int) -> None:
    """Cut the file after `keep` bytes and digest what is left."""
    file.write_bytes(file.read_bytes()[:keep])
    redigest(file.parent)


def add_symlink(variant: Path, name: str, target: str) -> Path:
    """Add a symbolic link to `target`, which may lie anywhere or nowhere."""
    link = variant / name
    link.symlink_to(target)
    return link


def depend_on(variant: Path, repo: str, version: int) -> None:
    """Let the variant pull in another kernel repository."""
    edit_metadata(variant, kernel_depends=[{"repo-id": repo, "version": version}])


def redirect(repo: Path, destination: str, revision: str = "v1") -> Path:
    """Point clients up to kernels 0.14 at another repository."""
    status = repo / "kernel-status.toml"
    status.write_text(
        f'kind = "redirect"\ndestination = "{destination}"\nrevision = "{revision}"\n',
        encoding="utf-8",
    )
    return status


def kernel_module() -> bytes:
    """Return a small Linux kernel module: a relocatable ELF with the sections of one."""
    info = b"license=GPL\0vermagic=6.1.0 SMP preempt mod_unload \0name=gpu_helper\0depends=\0"
    sections = [
        (".modinfo", 1, info),
        (".gnu.linkonce.this_module", 1, b"\0" * 56 + b"gpu_helper".ljust(56, b"\0")),
    ]
    names = b"\0"
    headers = [bytes(64)]
    body = b""
    for name, kind, data in sections:
        headers.append(_section(len(names), kind, 64 + len(body), len(data)))
        names += name.encode() + b"\0"
        body += data.ljust(-(-len(data) // 8) * 8, b"\0")
    own = len(names)
    names += b".shstrtab\0"
    headers.append(_section(own, 3, 64 + len(body), len(names)))
    body += names.ljust(-(-len(names) // 8) * 8, b"\0")
    # ELF64, little-endian, ET_REL, EM_X86_64
    identity = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    head = struct.pack(
        "<16sHHIQQQIHHHHHH",
        identity, 1, 62, 1, 0, 0, 64 + len(body), 0, 64, 0, 0, 64, len(headers), len(headers) - 1,
    )  # fmt: skip
    return head + body + b"".join(headers)


def _section(name: int, kind: int, offset: int, size: int) -> bytes:
    return struct.pack("<IIQQQQIIQQ", name, kind, 2, 0, offset, size, 0, 0, 1, 0)


def _each(change: Callable[[Path], object]) -> Callable[[Path], None]:
    def spoil(repo: Path) -> None:
        for variant in variants(repo):
            change(variant)

    return spoil


_HARMLESS = "print('bytecode was executed')"

SPOILED: Mapping[str, Callable[[Path], object]] = {
    "tampered-source": _each(lambda variant: tamper(variant / "layers.py")),
    "planted-bytecode": _each(lambda variant: plant_bytecode(variant, _HARMLESS)),
    "sourceless-bytecode": _each(lambda variant: plant_sourceless(variant, _HARMLESS)),
    "stolen-module-name": _each(take_module_name),
    "kernel-module": _each(add_kernel_module),
    "truncated-metadata": _each(
        lambda variant: (variant / METADATA).write_bytes((variant / METADATA).read_bytes()[:100])
    ),
    "symlink-outside": _each(lambda variant: add_symlink(variant, "passwd", "/etc/passwd")),
    "unpinned-dependency": _each(lambda variant: depend_on(variant, "kernels-test/other", 1)),
    "redirect": lambda repo: redirect(repo, "kernels-test/other"),
}
"""Ways to spoil any repository in place, by name; for tests that try them all."""
