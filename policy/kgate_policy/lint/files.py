"""Finds files, picks their reader by name and content, leaves out what a comment excuses.

A line that ends in `kgate: ignore[KG-LINT-001] reason` is excused from that rule. Symbolic links
are not followed. Fixes change text in memory; writing files is the caller's.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

from kgate_core.errors import NotFound
from kgate_policy.lint import configs
from kgate_policy.lint.configs import lint_config
from kgate_policy.lint.dockerfiles import lint_dockerfile
from kgate_policy.lint.findings import LintFinding, found
from kgate_policy.lint.manifests import lint_yaml
from kgate_policy.lint.python import MAX_BYTES, lint_python

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from kgate_core.lock import Lock

_SKIPPED: Final = frozenset(
    {".git", ".hg", ".mypy_cache", ".ruff_cache", ".tox", ".venv", "__pycache__", "node_modules"}
    | {"site-packages", "venv"}
)
_IGNORED: Final = re.compile(
    r"kgate:\s*ignore\[(?P<rules>KG-LINT-\d{3}(?:\s*,\s*KG-LINT-\d{3})*)\]"
)
_DOCKERFILE: Final = re.compile(r"(?:.*\.)?(?:Dockerfile|Containerfile)(?:\..*)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Checked:
    """One file that was read, with what was found in it."""

    path: Path
    text: str
    findings: tuple[LintFinding, ...]


def lint_paths(paths: Iterable[Path], *, lock: Lock | None = None) -> Iterator[Checked]:
    """Read files, and folders with everything below; raises NotFound for a path that is not.

    Only files of a known kind are read; each is yielded, also if nothing was found in it.
    """
    for path in paths:
        if not path.exists():
            raise NotFound(f"there is no {path}")
        for file in sorted(_walk(path)) if path.is_dir() else [path]:
            if _kind(file.as_posix()) is None:
                continue
            try:
                data = file.read_bytes()
            except OSError as exc:
                finding = found(18, file.as_posix(), 1, f"cannot be opened: {exc.strerror}")
                yield Checked(file, "", (finding,))
                continue
            findings = lint_text(file.as_posix(), data, lock=lock)
            yield Checked(file, data.decode("utf-8", errors="replace"), findings)


def lint_text(path: str, data: bytes, *, lock: Lock | None = None) -> tuple[LintFinding, ...]:
    """Check one file's content; `path` says what kind it is."""
    kind = _kind(path)
    if kind is None:
        return ()
    limit = configs.MAX_BYTES if kind == "config" else MAX_BYTES
    if len(data) > limit:
        return (found(18, path, 1, f"{len(data)} bytes are more than the {limit} that are read"),)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as exc:
        return (found(18, path, 1, f"not UTF-8: {exc.reason}"),)
    match kind:
        case "python":
            findings = lint_python(text, path, lock)
        case "config":
            findings = lint_config(data, path)
        case "dockerfile":
            findings = lint_dockerfile(text, path)
        case _:
            findings = lint_yaml(data, path, lock)
    lines = text.split("\n")
    kept = {item for item in findings if not _ignored(item, lines)}
    return tuple(sorted(kept, key=lambda item: (item.line, item.rule, item.seen)))


def apply_fixes(text: str, findings: Sequence[LintFinding]) -> tuple[str, int]:
    """Return the text with every fix that does not overlap another, and how many were made."""
    made = 0
    limit = len(text) + 1
    fixes = {item.fix for item in findings if item.fix is not None}
    for fix in sorted(fixes, key=lambda fix: (fix.start, fix.end), reverse=True):
        if fix.end > limit:
            continue
        text = text[: fix.start] + fix.text + text[fix.end :]
        limit = fix.start
        made += 1
    return text, made


def _ignored(item: LintFinding, lines: list[str]) -> bool:
    line = lines[item.line - 1] if 0 < item.line <= len(lines) else ""
    match = _IGNORED.search(line)
    return match is not None and item.rule in re.split(r"\s*,\s*", match["rules"])


def _kind(path: str) -> str | None:
    name = PurePosixPath(path).name
    if name.endswith((".py", ".pyi")):
        return "python"
    if name == "config.json":
        return "config"
    if _DOCKERFILE.fullmatch(name):
        return "dockerfile"
    return "yaml" if name.endswith((".yaml", ".yml")) else None


def _walk(root: Path) -> Iterator[Path]:
    for folder, names, files in os.walk(root):
        names[:] = sorted(name for name in names if name not in _SKIPPED)
        yield from (path for name in files if not (path := Path(folder, name)).is_symlink())
