from __future__ import annotations

import re
from typing import Final

from tests.unit.house.source import ROOT

_ROW: Final = re.compile(r"^\| (T\d\d) \| (.+?) \| (.+?) \| (.+?) \|$", re.MULTILINE)
_LINK: Final = re.compile(r"\(\.\./tests/threats/([a-z0-9_]+\.py)\)")
THREATS: Final = 58


def rows() -> list[tuple[str, str, str, str]]:
    return _ROW.findall((ROOT / "docs/threat-model.md").read_text(encoding="utf-8"))


def test_every_attack_has_one_row_that_says_where_it_stops() -> None:
    assert [row[0] for row in rows()] == [f"T{number:02}" for number in range(1, THREATS + 1)]


def test_every_test_of_an_attack_stands_in_its_row_and_every_row_names_tests_that_exist() -> None:
    listed = {(number, name) for number, *_, last in rows() for name in _LINK.findall(last)}
    existing = {
        (f"T{number}", path.name)
        for path in (ROOT / "tests/threats").glob("test_*.py")
        for number in re.findall(r"t(\d\d)(?=[_.])", path.name)
    }
    assert listed == existing, "run `make docs`"


def test_every_file_among_the_attacks_bears_a_number() -> None:
    names = [path.name for path in (ROOT / "tests/threats").glob("test_*.py")]
    assert [name for name in names if not re.match(r"test(_t\d\d)+[_.]", name)] == []
