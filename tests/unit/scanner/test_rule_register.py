"""The register of rules: unique, complete, in words."""

from __future__ import annotations

import pytest

from kgate_core.errors import InvalidInput
from kgate_core.evidence import Severity
from kgate_scanner.device import rules as device_rules
from kgate_scanner.rules import Rule, all_rules, merge


def _rule(name: str) -> Rule:
    return Rule(name, Severity.LOW, "title", "why", "fix")


def test_an_id_used_twice_is_refused() -> None:
    with pytest.raises(InvalidInput, match="used twice"):
        merge([[_rule("KG-DEV-001")], [_rule("KG-DEV-001")]])


@pytest.mark.parametrize("name", ["", "DEV-001", "KG-dev-001", "KG-DEV-1", "KG-DEV-001 "])
def test_an_id_of_another_form_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="not a rule id"):
        _rule(name)


def test_every_rule_says_why_it_matters_and_what_to_do() -> None:
    rules = all_rules()
    assert {rule.id for rule in device_rules.RULES} < set(rules)
    assert list(rules) == sorted(rules)
    for rule in rules.values():
        assert len(rule.title) < 100
        assert rule.why.endswith(".")
        assert rule.fix.endswith(".")


def test_a_finding_carries_the_rule_and_the_place() -> None:
    finding = _rule("KG-DEV-001").finding("lib.so", "seen", offset=7)
    assert (finding.rule, finding.severity, finding.path) == ("KG-DEV-001", Severity.LOW, "lib.so")
    assert (finding.seen, finding.offset, finding.line) == ("seen", 7, None)
