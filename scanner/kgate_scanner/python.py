"""Parses Python source and says what it could do; it never runs, compiles or imports it.

Names are followed through imports, simple assignments, `getattr` with a constant and `__import__`
with a constant, no further: code that wants to hide from a reader of syntax can. Findings are
about calls, so an unused import is none.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kgate_scanner import rules_python as rules
from kgate_scanner.python_walk import Reader
from kgate_scanner.strings import credential_names

if TYPE_CHECKING:
    from kgate_core.evidence import Facts, Finding

MAX_SOURCE: Final = 8 * 1024**2  # bytes; the parser needs about 60 times as much memory
_MAX_IMPORTS: Final = 500
_ENCODINGS: Final = frozenset({"utf-8", "utf-8-sig", "ascii", "iso-8859-1", "latin-1"})
_BIDI: Final = re.compile("[\u202a-\u202e\u2066-\u2069\u200b-\u200f\u2060\ufeff]")
"""Characters that change the direction of text or cannot be seen (CVE-2021-42574)."""


@dataclass(frozen=True, slots=True)
class PythonFacts:
    """Facts and findings about one source file; not `complete` if it was not parsed."""

    facts: Facts
    findings: tuple[Finding, ...]
    complete: bool = True


def preload() -> None:
    """Touch what the parser loads on first use."""
    read_python(memoryview(b"import os\nprint(os)\n"), "preload.py")
    read_python(memoryview(b"# coding: latin-1\n\xff(\n"), "preload.py")


def read_python(data: memoryview, path: str) -> PythonFacts:
    """Return what the source does and offers; raises nothing for bad source."""
    if len(data) > MAX_SOURCE:
        seen = f"{len(data)} bytes are more than the {MAX_SOURCE} that are parsed"
        return PythonFacts({}, (rules.UNREAD.finding(path, seen),), complete=False)
    try:
        text, encoding = _decoded(bytes(data))
    except (SyntaxError, UnicodeDecodeError, LookupError) as exc:
        seen = f"its encoding is not one that is read ({type(exc).__name__})"
        return PythonFacts({}, (rules.DISGUISED.finding(path, seen),), complete=False)
    found = [*_disguises(text, path)]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except (SyntaxError, ValueError) as exc:
        line = getattr(exc, "lineno", None)
        reason = exc.msg if isinstance(exc, SyntaxError) else str(exc)
        found.append(rules.SYNTAX.finding(path, f"does not parse: {reason}", line=line))
        return PythonFacts({"encoding": encoding}, tuple(found))
    except (RecursionError, MemoryError):
        found.append(rules.UNREAD.finding(path, "nested deeper than the parser goes"))
        return PythonFacts({"encoding": encoding}, tuple(found), complete=False)
    reader = Reader(path)
    # One search of the whole text spares one for each constant of nearly every file.
    reader.read(tree, secrets=bool(credential_names(text)))
    facts: Facts = {
        "encoding": encoding,
        "lines": text.count("\n") + 1,
        "imports": sorted(reader.imports)[:_MAX_IMPORTS],
        "kernels": reader.kernels,
    }
    return PythonFacts(facts, (*found, *reader.findings))


def _decoded(data: bytes) -> tuple[str, str]:
    encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
    if encoding not in _ENCODINGS:
        raise LookupError(encoding)
    return data.decode(encoding), encoding


def _disguises(text: str, path: str) -> list[Finding]:
    found = []
    # A byte order mark at the very beginning is read as the encoding and says nothing.
    for match in list(_BIDI.finditer(text))[:20]:
        line = text.count("\n", 0, match.start()) + 1
        seen = f"holds the invisible character U+{ord(match[0]):04X}"
        found.append(rules.DISGUISED.finding(path, seen, line=line))
    return found
