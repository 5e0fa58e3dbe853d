"""Facts: one schema for the types, the collection and the page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kgate_core.errors import InvalidInput
from kgate_core.evidence import Finding, Severity
from kgate_policy import builtin_profile, evaluate
from kgate_policy.facts.collect import kernel_facts
from kgate_policy.facts.limits import (
    MAX_DEPTH,
    MAX_LIST,
    MAX_STRING,
    check_facts,
)
from kgate_policy.facts.pages import facts_page
from kgate_policy.facts.schema import RECORDS, VARIABLES
from tests.policykit import LIBRARY, METADATA, NOW, good_evidence, scan_of, with_metadata

PAGE = Path(__file__).parents[3] / "docs" / "facts.md"
BY_NAME = {record.name: record for record in RECORDS}
PLAIN: dict[str, type] = {"string": str, "int": int, "bool": bool}


def rich_facts() -> dict[str, Any]:
    """Return facts in which every field of a kernel is present."""
    good = good_evidence()
    scan = replace(
        scan_of(good.manifest, Finding("KG-PY-001", Severity.HIGH, "__init__.py", "x", line=3)),
        summary={
            "device": {"archs": {"cuda": ["sm_90", "sm_80"]}},
            "host": {"needed": ["libc.so.6"]},
            "python": {"imports": ["torch"]},
        },
    )
    evidence = replace(
        good,
        scan=scan,
        imported=good.imported
        | {"fetchedAt": "2026-11-21T12:00:00Z", "depends": ["a/b@" + "0" * 40]},
        metadata=METADATA | {"kernel-depends": [{"repo-id": "a/b", "version": 1}]},
    )
    results = evaluate(evidence, builtin_profile("dev"), now=NOW).results
    return kernel_facts(evidence, results)


def check(kind: str, value: object, where: str) -> None:
    """Assert that a value has the type that the schema promises."""
    if kind in BY_NAME:
        check_record(kind, value, where)
    elif kind.startswith("list<"):
        assert isinstance(value, list), where
        for item in value:
            check(kind[5:-1], item, where)
    elif kind.startswith("map<"):
        assert isinstance(value, dict), where
        for item in value.values():
            check(kind.split(", ")[1][:-1], item, where)
    else:
        assert type(value) is PLAIN[kind], where


def check_record(name: str, value: object, where: str) -> None:
    """Assert that a record has every field that is always there, and no unknown one."""
    assert isinstance(value, dict), where
    fields = {field.name: field for field in BY_NAME[name].fields}
    assert set(value) <= set(fields), where
    for field in fields.values():
        assert field.sometimes or field.name in value, f"{where}.{field.name}"
        if field.name in value:
            check(field.type, value[field.name], f"{where}.{field.name}")


def test_collected_facts_are_exactly_those_of_the_schema() -> None:
    facts = rich_facts()
    check_record("Kernel", facts, "kernel")
    assert set(facts) == {field.name for field in BY_NAME["Kernel"].fields}


def test_facts_without_a_scan_or_an_import_record_keep_their_types() -> None:
    bare = replace(good_evidence(), scan=None, sbom=None, imported={}, metadata={})
    check_record("Kernel", kernel_facts(bare), "kernel")


@pytest.mark.parametrize("wrong", [7, ["x"], {"a": 1}, True])
def test_metadata_of_another_type_is_absent_instead_of_wrong(wrong: object) -> None:
    evidence = with_metadata(
        id=wrong, license=wrong, source=wrong, backend=wrong, provenance=wrong, version="1"
    )
    facts = kernel_facts(evidence)
    check_record("Kernel", facts, "kernel")
    assert "id" not in facts["metadata"]
    assert "version" not in facts["metadata"]


def test_the_scan_is_told_in_facts() -> None:
    facts = rich_facts()
    assert facts["architectures"] == ["sm_80", "sm_90"]
    assert facts["scan"]["counts"]["high"] == 1
    assert facts["scan"]["findings"][0]["line"] == 3
    assert {file["path"] for file in facts["files"]} == {"__init__.py", LIBRARY, "metadata.json"}
    assert facts["rules"]["no-bytecode"] == "pass"


def test_the_page_is_written_from_the_schema() -> None:
    assert PAGE.read_text() == facts_page()


def test_every_variable_of_the_schema_has_a_known_type() -> None:
    known = {"timestamp", "dyn", *BY_NAME}
    assert {field.type for field in VARIABLES} <= known | {"list<Kernel>"}


def test_facts_within_the_limits_are_fine() -> None:
    check_facts({"a": ["x" * MAX_STRING, None, True, 1.5, NOW]}, what="facts")


def nested(depth: int) -> object:
    """Return a list inside a list, so many times."""
    value: object = 0
    for _ in range(depth):
        value = [value]
    return value


BEYOND = [
    (nested(MAX_DEPTH + 1), "nested deeper"),
    (nested(100_000), "nested deeper"),
    ([0] * (MAX_LIST + 1), "items in one place"),
    (dict.fromkeys(map(str, range(MAX_LIST + 1))), "items in one place"),
    ("x" * (MAX_STRING + 1), "characters, at most"),
    (["x" * MAX_STRING] * 80, "characters of facts"),
    (2**63, "64 bits"),
    ({1: 2}, "no text of normal length"),
    ({"x" * 5_000: 1}, "no text of normal length"),
    ({"a": object()}, "is not a fact"),
    ({"a": (1, 2)}, "is not a fact"),
]


@pytest.mark.parametrize(("value", "message"), BEYOND)
def test_facts_beyond_a_limit_are_refused(value: object, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        check_facts(value, what="facts")
