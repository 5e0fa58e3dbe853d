"""Reads Python sources: how kernels are asked for.

Works on the syntax tree, so strings in comments and documentation do not count. Names are
followed through `import … as …` and through simple constants of the same file, no further.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any, Final

from kgate_policy.lint.findings import Fix, LintFinding, found
from kgate_policy.lint.references import (
    attention_kernel,
    hf_addresses,
    is_commit,
    locked,
    pin_argument,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kgate_core.lock import Lock

MAX_BYTES: Final = 2 * 1024**2  # bytes of one source file
_LOADERS: Final = frozenset(
    {"get_kernel", "get_kernel_variants", "has_kernel", "install_kernel"}
    | {"FuncRepository", "LayerRepository"}
)
_LOCAL: Final = "LOCAL_KERNELS"
_ATTENTION: Final = frozenset({"attn_implementation", "_attn_implementation"})


def lint_python(text: str, path: str, lock: Lock | None) -> list[LintFinding]:
    """Return what a source file does with kernels."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as exc:
        line = getattr(exc, "lineno", None) or 1
        return [found(18, path, line, f"not Python that can be parsed: {exc}")]
    reader = _Reader(text, path, lock, tree)
    findings: list[LintFinding] = []
    for node in ast.walk(tree):
        findings += reader.read(node)
    return findings


class _Reader:
    def __init__(self, text: str, path: str, lock: Lock | None, tree: ast.Module) -> None:
        self._path = path
        self._lock = lock
        self._text = text
        self._lines = _line_starts(text)
        self._names = _aliases(tree)
        self._constants = _constants(tree)
        self._documentation = _docstrings(tree)

    def read(self, node: ast.AST) -> Iterator[LintFinding]:
        """Yield what one node of the tree does; its children are asked for themselves."""
        match node:
            case ast.Call():
                yield from self._call(node)
            case ast.Dict():
                yield from self._mapping(node)
            case ast.Assign(targets=[ast.Subscript(slice=key)]) if self._text_of(key) == _LOCAL:
                yield found(4, self._path, node.lineno, f"{_LOCAL} is set here")
            case ast.Assign(targets=[ast.Attribute(attr=name)]) if name in _ATTENTION:
                yield from self._attention(node.value)
            case ast.Constant(value=str(text)) if id(node) not in self._documentation:
                for _, address, pin in hf_addresses(text):
                    if not is_commit(pin):
                        yield found(6, self._path, node.lineno, f"{address} names no commit")
            case _:
                pass

    def _mapping(self, node: ast.Dict) -> Iterator[LintFinding]:
        for key, value in zip(node.keys, node.values, strict=True):
            name = None if key is None else self._text_of(key)
            if name in _ATTENTION:
                yield from self._attention(value)
            if name == _LOCAL:
                yield found(4, self._path, value.lineno, f"{_LOCAL} is put into a mapping")

    def _call(self, node: ast.Call) -> Iterator[LintFinding]:
        keywords = {item.arg: item.value for item in node.keywords if item.arg}
        name = self._called(node.func)
        if name in _LOADERS:
            yield from self._loader(node, name, keywords)
        flag = keywords.get("trust_remote_code")
        if isinstance(flag, ast.Constant) and flag.value is True:
            yield found(
                3, self._path, flag.lineno, f"trust_remote_code=True for {name or 'a call'}"
            )
        for key in _ATTENTION & keywords.keys():
            yield from self._attention(keywords[key])
        if name == "set_attn_implementation" and node.args:
            yield from self._attention(node.args[0])
        first = self._text_of(node.args[0]) if node.args else None
        if name in {"setdefault", "setenv", "putenv"} and first == _LOCAL:
            yield found(4, self._path, node.lineno, f"{_LOCAL} is set here")

    def _loader(
        self, node: ast.Call, name: str, keywords: dict[str, ast.expr]
    ) -> Iterator[LintFinding]:
        if any(item.arg is None for item in node.keywords):
            return  # **options: what they hold is not known here
        repo_node = node.args[0] if node.args else keywords.get("repo_id")
        repo = None if repo_node is None else self._text_of(repo_node)
        shown = repr(repo) if repo else "a kernel"
        # get_kernel takes the revision as its second positional argument.
        revision = keywords.get("revision")
        if revision is None and name in {"get_kernel", "install_kernel"} and len(node.args) > 1:
            revision = node.args[1]
        if revision is not None:
            text = self._text_of(revision)
            if text is not None and not is_commit(text):
                fix = self._commit_fix(revision, repo)
                yield found(
                    2, self._path, revision.lineno, f"{name}({shown}) follows {text!r}", fix=fix
                )
        elif "version" not in keywords:
            fix = self._version_fix(node, repo)
            yield found(1, self._path, node.lineno, f"{name}({shown}) names no version", fix=fix)

    def _attention(self, node: ast.expr) -> Iterator[LintFinding]:
        text = self._text_of(node)
        kernel = None if text is None else attention_kernel(text)
        if kernel is None or is_commit(kernel[1]):
            return
        fix = None
        entry = locked(self._lock, kernel[0])
        if entry is not None and kernel[1] is None and isinstance(node, ast.Constant):
            pinned = str(text).replace(kernel[0], f"{kernel[0]}@{entry.commit}", 1)
            fix = self._replace(node, str(text), pinned)
        yield found(5, self._path, node.lineno, f"attention kernel {text!r}", fix=fix)

    def _version_fix(self, node: ast.Call, repo: str | None) -> Fix | None:
        entry = None if repo is None else locked(self._lock, repo)
        last = max(
            [*node.args, *(item.value for item in node.keywords)],
            key=lambda item: (item.end_lineno or 0, item.end_col_offset or 0),
            default=None,
        )
        if entry is None or last is None:
            return None
        end = self._offset(last.end_lineno, last.end_col_offset)
        return self._checked(node, Fix(end, end, f", {pin_argument(entry)}"))

    def _commit_fix(self, node: ast.expr, repo: str | None) -> Fix | None:
        entry = None if repo is None else locked(self._lock, repo)
        if entry is None or not isinstance(node, ast.Constant):
            return None
        return self._replace(node, str(node.value), str(entry.commit))

    def _replace(self, node: ast.Constant, old: str, new: str) -> Fix | None:
        start = self._offset(node.lineno, node.col_offset)
        end = self._offset(node.end_lineno, node.end_col_offset)
        source = self._text[start:end]
        if source.count(old) != 1:
            return None  # written with escapes or in pieces: better by hand
        return self._checked(node, Fix(start, end, source.replace(old, new)))

    def _checked(self, node: ast.expr, fix: Fix) -> Fix | None:
        """Return the fix if the expression that it changes can still be parsed."""
        start = self._offset(node.lineno, node.col_offset)
        end = self._offset(node.end_lineno, node.end_col_offset)
        text = self._text[start : fix.start] + fix.text + self._text[fix.end : end]
        try:
            ast.parse(f"({text}\n)", mode="eval")
        except (SyntaxError, ValueError):
            return None
        return fix

    def _offset(self, line: int | None, column: int | None) -> int:
        # The tree counts columns in UTF-8 bytes, the text is in characters.
        start, end = self._lines[(line or 1) - 1 : (line or 1) + 1]
        text = self._text[start:end].encode()
        return start + len(text[: column or 0].decode(errors="ignore"))

    def _called(self, node: ast.expr) -> str:
        match node:
            case ast.Name(id=name):
                return self._names.get(name, name)
            case ast.Attribute(attr=name):
                return name
            case _:
                return ""

    def _text_of(self, node: ast.expr) -> str | None:
        match node:
            case ast.Constant(value=str(text)):
                return text
            case ast.Name(id=name):
                return self._constants.get(name)
            case _:
                return None


def _aliases(tree: ast.Module) -> dict[str, str]:
    return {
        alias.asname: alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname
    }


def _constants(tree: ast.Module) -> dict[str, str]:
    """Return module-level names that are given one text, once."""
    values: dict[str, list[Any]] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            value = node.value.value if isinstance(node.value, ast.Constant) else None
            values.setdefault(node.targets[0].id, []).append(value)
    return {name: given[0] for name, given in values.items() if [type(v) for v in given] == [str]}


def _docstrings(tree: ast.Module) -> set[int]:
    return {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }


def _line_starts(text: str) -> list[int]:
    starts = [0]
    for line in text.split("\n"):
        starts.append(starts[-1] + len(line) + 1)
    return starts
