"""JUnit XML: a test suite for each variant, a test case for each rule.

The format has no specification; what is written here is what Jenkins, GitLab and GitHub actions
agree on. Characters that XML 1.0 cannot hold are replaced.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from xml.sax.saxutils import escape, quoteattr

from kgate_policy.reports.vocabulary import Word, word

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kgate_core.evidence import RuleResult
    from kgate_policy.reports.entries import Entry

# https://www.w3.org/TR/xml/#charsets
_NOT_XML: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(entries: Sequence[Entry]) -> str:
    """Return the XML; a variant without any result is an error, not a success."""
    suites = [_suite(entry) for entry in entries]
    words = [word(result) for entry in entries for result in entry.results]
    errors = words.count(Word.ERROR) + sum(not entry.results for entry in entries)
    tests = len(words) + sum(not entry.results for entry in entries)
    head = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<testsuites name="kgate" tests="{tests}" failures="{words.count(Word.FAIL)}" '
        f'errors="{errors}">\n'
    )
    return head + "".join(suites) + "</testsuites>\n"


def _suite(entry: Entry) -> str:
    words = [word(result) for result in entry.results]
    cases = "".join(_case(entry, result) for result in entry.results)
    errors = words.count(Word.ERROR)
    if not entry.results:
        errors = 1
        cases = _element(entry, "policy", '<error message="no rule was asked"/>')
    return (
        f"  <testsuite name={_attribute(entry.name)} tests={_attribute(str(max(1, len(words))))} "
        f'failures="{words.count(Word.FAIL)}" errors="{errors}">\n{cases}  </testsuite>\n'
    )


def _case(entry: Entry, result: RuleResult) -> str:
    text = _clean(f"{result.seen}\n{result.hint}".strip())
    match word(result):
        case Word.FAIL:
            inner = f"<failure message={_attribute(result.seen)}>{escape(text)}</failure>"
        case Word.ERROR:
            inner = f"<error message={_attribute(result.seen)}>{escape(text)}</error>"
        case Word.WARN:
            inner = f"<system-out>{escape(f'warning: {text}')}</system-out>"
        case Word.PASS | Word.SKIP:
            inner = ""
    return _element(entry, result.rule, inner)


def _element(entry: Entry, rule: str, inner: str) -> str:
    owner = f"{entry.kernel.repo}.{entry.kernel.variant}"
    return (
        f"    <testcase name={_attribute(rule)} classname={_attribute(owner)}>{inner}</testcase>\n"
    )


def _attribute(text: str) -> str:
    return quoteattr(" ".join(_clean(text).split()))


def _clean(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text)
