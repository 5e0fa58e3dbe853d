"""Goes through a Python syntax tree without recursion, in the order of the source.

It gives the nodes that matter and says whether importing the file is enough to reach them; what
they mean is for `python_walk`.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_MATTER: Final = frozenset(
    {
        ast.Import, ast.ImportFrom, ast.Call, ast.Assign, ast.AugAssign, ast.AnnAssign,
        ast.FunctionDef, ast.AsyncFunctionDef, ast.Constant,
    }
)  # fmt: skip
_LATER: Final = frozenset({ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda})
_LEAVES: Final = frozenset({ast.Name, ast.Constant, ast.Pass, ast.Global, ast.Nonlocal})


def placed(tree: ast.Module) -> Iterator[tuple[ast.AST, bool]]:
    """Yield each node that matters, and whether importing the file reaches it."""
    pending: list[tuple[ast.AST, bool]] = [(tree, True)]
    while pending:
        node, at_import = pending.pop()
        kind = type(node)
        if kind in _MATTER:
            yield node, at_import
        if kind in _LEAVES:
            continue
        # Decorators and defaults run where the function stands, its body does not.
        later = kind in _LATER or (isinstance(node, ast.If) and _is_never(node.test))
        inner: list[tuple[ast.AST, bool]] = []
        for field in node._fields:
            value = getattr(node, field, None)
            reached = at_import and not (later and field == "body")
            if isinstance(value, list):
                inner += [(child, reached) for child in value if isinstance(child, ast.AST)]
            elif isinstance(value, ast.AST) and field not in {"ctx", "op"}:
                inner.append((value, reached))
        inner.reverse()
        pending += inner


def _is_never(test: ast.expr) -> bool:
    """Tell the tests that importing does not pass: being the main program, being type-checked."""
    match test:
        case ast.Compare(
            left=ast.Name(id="__name__"), comparators=[ast.Constant(value="__main__")]
        ):
            return True
        case ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING"):
            return True
        case _:
            return False
