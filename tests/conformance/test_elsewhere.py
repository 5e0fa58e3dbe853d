"""The page about other implementations says what the tests prove, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.interop import elsewhere, test_npm_verify

ROOT = Path(__file__).parents[2]


def test_the_page_is_written_from_the_table() -> None:
    found = (ROOT / "docs/verify-elsewhere.md").read_text(encoding="utf-8")
    assert found == elsewhere.page(), "run `python -m tests.interop.elsewhere`"


@pytest.mark.parametrize("row", elsewhere.ROWS, ids=lambda row: row.test)
def test_each_row_names_a_test_that_exists(row: elsewhere.Row) -> None:
    text = (ROOT / row.file).read_text(encoding="utf-8")
    assert re.search(rf"^def {row.test}\(", text, re.MULTILINE)


def test_the_versions_are_those_that_are_run() -> None:
    npm = {row.version for row in elsewhere.ROWS if row.tool.startswith("npm")}
    assert test_npm_verify.PACKAGES[0] == f"@sigstore/verify@{npm.pop()}"
    assert not npm
    model = (ROOT / "tests/interop/test_model_signing.py").read_text(encoding="utf-8")
    versions = {row.version for row in elsewhere.ROWS if "model_signing" in row.tool}
    assert all(f"model-signing=={version}" in model for version in versions)
