"""Walks a Python syntax tree without recursion and collects what matters.

It follows names as far as one file shows them; see `python` for what that leaves out.
"""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, Final

from kgate_scanner import rules_python as rules
from kgate_scanner.python_calls import DECODERS, EFFECTS, rule_for
from kgate_scanner.python_tree import placed
from kgate_scanner.strings import credential_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kgate_core.evidence import Facts, Finding
    from kgate_scanner.rules import Rule

_MAX_NAME: Final = 12  # attributes in one dotted name
_MAX_KERNELS: Final = 2000
_KERNEL_DECORATORS: Final = {
    "triton.jit": "triton",
    "triton.runtime.jit.jit": "triton",
    "triton.experimental.gluon.jit": "gluon",
    "helion.kernel": "helion",
    "tilelang.jit": "tilelang",
    "cutlass.cute.kernel": "cute",
    "cutlass.cute.jit": "cute",
    "numba.cuda.jit": "numba",
    "warp.kernel": "warp",
    "nki.jit": "nki",
    "neuronxcc.nki.jit": "nki",
}
_RUN: Final = frozenset({"exec", "eval", "compile", "builtins.exec", "builtins.eval"})
_LOADERS: Final = frozenset({"__import__", "importlib.import_module", "builtins.__import__"})
_SYS_TABLES: Final = frozenset({"sys.modules", "sys.meta_path", "sys.path_hooks", "sys.path"})
_MODE: Final = re.compile(r"[rwxabt+U]{1,4}")
_WRITE_MODES: Final = frozenset("wax+")


class Reader:
    """Reads one tree; afterwards `imports`, `kernels` and `findings` hold the result."""

    def __init__(self, path: str) -> None:
        self.path: Final = path
        self.imports: Final[set[str]] = set()
        self.kernels: Final[list[Facts]] = []
        self.findings: Final[list[Finding]] = []
        self._names: Final[dict[str, str]] = {}
        self._foreign: Final[set[str]] = set()
        self._decoded: Final[set[str]] = set()
        self._said: Final[set[tuple[str, int, str]]] = set()

    def read(self, tree: ast.Module, *, secrets: bool = True) -> None:
        """Collect names first, then look at every node that matters with its place.

        Without `secrets` no text is searched for the names of credentials.
        """
        nodes = list(placed(tree))
        for node, _ in nodes:
            self._learn(node)
        for node, at_import in nodes:
            match node:
                case ast.Constant(value=text):
                    if secrets and isinstance(text, str):
                        for name in credential_names(text):
                            self._say(rules.CREDENTIALS, node, f"mentions {name}")
                case ast.Call():
                    self._call(node, at_import=at_import)
                case ast.Assign(targets=targets):
                    self._assign(node, targets)
                case ast.AugAssign(target=target) | ast.AnnAssign(target=target):
                    self._assign(node, [target])
                case ast.FunctionDef() | ast.AsyncFunctionDef():
                    self._function(node, at_import=at_import)
                case _:
                    pass

    def _learn(self, node: ast.AST) -> None:
        match node:
            case ast.Import(names=names):
                for alias in names:
                    top = alias.name.partition(".")[0]
                    self.imports.add(top)
                    self._names[alias.asname or top] = alias.name if alias.asname else top
                    self._foreign.add(alias.asname or top)
            case ast.ImportFrom(module=module, names=names, level=level):
                base = "." * level + (module or "")
                if not level and module:
                    self.imports.add(module.partition(".")[0])
                for alias in names:
                    self._names[alias.asname or alias.name] = f"{base}.{alias.name}"
                    if not level:
                        self._foreign.add(alias.asname or alias.name)
            case ast.Assign(targets=[ast.Name(id=target)], value=value):
                if any(DECODERS.fullmatch(name) for name in self._called(value)):
                    self._decoded.add(target)
                elif target not in self._names and (full := self._full(value)) and "." in full:
                    self._names[target] = full
            case _:
                pass

    def _full(self, node: ast.AST | None) -> str | None:
        """Return the full dotted name that an expression refers to, None if it is not one."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute) and len(parts) < _MAX_NAME:
            parts.append(node.attr)
            node = node.value
        base: str
        match node:
            case ast.Name(id=name):
                base = self._names.get(name, name)
            case ast.Call(
                func=ast.Name(id="getattr"), args=[value, ast.Constant(value=str() as a), *_]
            ):
                base = f"{self._full_shallow(value)}.{a}"
            case ast.Call(func=func, args=[ast.Constant(value=str() as a), *_]) if (
                self._full_shallow(func) in _LOADERS
            ):
                base = str(a)
            case _:
                # The object is not known, the method's name may still say enough.
                base = "?"
        return ".".join([base, *reversed(parts)]) if parts or base != "?" else None

    def _full_shallow(self, node: ast.AST) -> str:
        parts: list[str] = []
        while isinstance(node, ast.Attribute) and len(parts) < _MAX_NAME:
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name):
            return "?"
        return ".".join([self._names.get(node.id, node.id), *reversed(parts)])

    def _called(self, node: ast.AST) -> Iterator[str]:
        for inner in ast.walk(node):
            if isinstance(inner, ast.Call) and (name := self._full(inner.func)):
                yield name

    def _call(self, node: ast.Call, *, at_import: bool) -> None:
        name = self._full(node.func)
        if name is None:
            return
        rule = rule_for(name)
        if name in _RUN and self._is_hidden(node):
            rule = rules.HIDDEN_CODE
        elif name in _LOADERS and node.args and not isinstance(node.args[0], ast.Constant):
            rule = rules.COMPUTED_IMPORT
        elif name == "open" or name.endswith(".open"):
            # open(path, mode) of a module, Path.open(mode) of an object
            is_method = name != "open" and name.partition(".")[0] not in self.imports
            rule = rules.WRITES if _mode_writes(node, 0 if is_method else 1) else rule
        elif name in {"setattr", "builtins.setattr"} and node.args:
            rule = rules.TAMPERS if self._is_foreign(node.args[0]) else None
        elif name == "os.environ.update":
            rule = rules.ENVIRONMENT
        elif rule is rules.UNPICKLES and _is_safe(name, node):
            rule = None
        if rule is None:
            return
        self._say_call(rule, node, name, at_import=at_import)

    def _say_call(self, rule: Rule, node: ast.AST, name: str, *, at_import: bool) -> None:
        self._say(rule, node, f"calls {_shown(name)}")
        if at_import and rule in EFFECTS:
            self._say(rules.AT_IMPORT, node, f"calls {_shown(name)} while being imported")

    def _is_hidden(self, node: ast.Call) -> bool:
        for argument in node.args[:1]:
            if any(DECODERS.fullmatch(name) for name in self._called(argument)):
                return True
            names = {inner.id for inner in ast.walk(argument) if isinstance(inner, ast.Name)}
            if names & self._decoded:
                return True
        return False

    def _is_foreign(self, node: ast.AST) -> bool:
        while isinstance(node, ast.Attribute):
            node = node.value
        return isinstance(node, ast.Name) and node.id in self._foreign

    def _assign(self, node: ast.stmt, targets: Iterable[ast.expr]) -> None:
        for target in targets:
            match target:
                case ast.Subscript(value=value):
                    name = self._full(value)
                    if name in _SYS_TABLES:
                        self._say(rules.TAMPERS, node, f"assigns into {name}")
                    elif name == "os.environ":
                        self._say(rules.ENVIRONMENT, node, "assigns into os.environ")
                case ast.Attribute() if self._is_foreign(target):
                    self._say(rules.TAMPERS, node, f"assigns to {_shown(self._full(target) or '')}")
                case _:
                    pass

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef, *, at_import: bool) -> None:
        for decorator in node.decorator_list:
            called = decorator.func if isinstance(decorator, ast.Call) else decorator
            name = self._full(called) or ""
            if called is decorator and (rule := rule_for(name)) is not None:
                # A bare decorator is a call that does not look like one.
                self._say_call(rule, decorator, name, at_import=at_import)
            language = _KERNEL_DECORATORS.get(name)
            if language and len(self.kernels) < _MAX_KERNELS:
                arguments = node.args
                every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
                self.kernels.append(
                    {
                        "name": node.name,
                        "language": language,
                        "line": node.lineno,
                        "parameters": [argument.arg for argument in every],
                        "constexpr": [a.arg for a in every if self._is_constexpr(a.annotation)],
                    }
                )
                return

    def _is_constexpr(self, annotation: ast.expr | None) -> bool:
        if isinstance(annotation, ast.Constant):
            return str(annotation.value).endswith("constexpr")
        return (self._full(annotation) or "").endswith("constexpr")

    def _say(self, rule: Rule, node: ast.AST, seen: str) -> None:
        line = getattr(node, "lineno", 0)
        if (rule.id, line, seen) not in self._said:
            self._said.add((rule.id, line, seen))
            self.findings.append(rule.finding(self.path, seen, line=line))


def _shown(name: str) -> str:
    return name.replace("?", "<object>", 1)


def _mode_writes(node: ast.Call, place: int) -> bool:
    modes = [*node.args[place : place + 1], *(k.value for k in node.keywords if k.arg == "mode")]
    return any(
        isinstance(mode, ast.Constant)
        and isinstance(mode.value, str)
        and _MODE.fullmatch(mode.value)
        and not _WRITE_MODES.isdisjoint(mode.value)
        for mode in modes
    )


def _is_safe(name: str, node: ast.Call) -> bool:
    said = {k.arg: k.value.value for k in node.keywords if isinstance(k.value, ast.Constant)}
    match name:
        case "torch.load":
            return said.get("weights_only") is True
        case "numpy.load":
            return said.get("allow_pickle") is not True
        case "yaml.load":
            loader = next((k.value for k in node.keywords if k.arg == "Loader"), None)
            return isinstance(loader, ast.Attribute) and "Safe" in loader.attr
        case _:
            return False
