"""The project's own source as these tests read it: parsed, never imported."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[3]
PARTS = {
    "core": "kgate_core",
    "client": "kgate_client",
    "scanner": "kgate_scanner",
    "signer": "kgate_signer",
    "policy": "kgate_policy",
    "mirror_server": "kgate_mirror_server",
    "cli": "kgate_cli",
}


@cache
def modules(part: str) -> tuple[Path, ...]:
    """All Python files of one part, but for the example kernels, which are content to serve."""
    package = ROOT / part / PARTS[part]
    return tuple(
        path for path in sorted(package.rglob("*.py")) if "examples" not in path.parts[:-1]
    )


def every_module() -> list[Path]:
    return [path for part in PARTS for path in modules(part)]


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path) -> set[str]:
    """Full names of every module that a file imports, wherever in the file."""
    found: set[str] = set()
    for node in ast.walk(tree(path)):
        match node:
            case ast.Import(names=names):
                found |= {alias.name for alias in names}
            case ast.ImportFrom(module=str(module), level=0, names=names):
                found |= {module} | {f"{module}.{alias.name}" for alias in names}
            case _:
                pass
    return found


def calls(path: Path) -> list[tuple[str, int]]:
    """Dotted name and line of every call whose name is written out."""
    return [
        (ast.unparse(node.func), node.lineno)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call)
    ]
