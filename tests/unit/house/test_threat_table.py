from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, Final

from tests.unit.house.source import ROOT, name, tree

if TYPE_CHECKING:
    from pathlib import Path

_ROW: Final = re.compile(r"^\| (T\d\d) \| (.+?) \| (.+?) \| (.+?) \|$", re.MULTILINE)
_LINK: Final = re.compile(r"\(\.\./(tests/[a-z0-9_/]+\.py)\)")
_NAME: Final = re.compile(r"test_t(\d\d)(?:_|$)")
THREATS: Final = 58


def rows() -> list[tuple[str, str, str, str]]:
    return _ROW.findall((ROOT / "docs/threat-model.md").read_text(encoding="utf-8"))


def test_every_attack_has_one_row_that_says_where_it_stops() -> None:
    assert [row[0] for row in rows()] == [f"T{number:02}" for number in range(1, THREATS + 1)]


def test_every_test_of_an_attack_stands_in_its_row_and_every_row_names_tests_that_exist() -> None:
    listed = {(number, file) for number, *_, last in rows() for file in _LINK.findall(last)}
    assert listed == {
        (number, name(path)) for path, numbers in carried_out().items() for number in numbers
    }, "run `make docs`"


def test_every_file_among_the_attacks_says_which_it_carries_out() -> None:
    silent = [path.name for path, numbers in carried_out().items() if not numbers]
    assert [file for file in silent if (ROOT / "tests/threats" / file).exists()] == []


def carried_out() -> dict[Path, set[str]]:
    found: dict[Path, set[str]] = {}
    for path in (ROOT / "tests").rglob("test_*.py"):
        functions = [n.name for n in ast.walk(tree(path)) if isinstance(n, ast.FunctionDef)]
        names = [path.stem, *functions]
        numbers = [match[1] for match in map(_NAME.match, names) if match]
        found[path] = {f"T{number}" for number in numbers}
    return found
