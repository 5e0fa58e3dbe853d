"""Writes docs/facts.md from the tables of `schema`.

A text and nothing else; a test compares it with the file in the repository.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kgate_policy.facts.limits import MAX_DEPTH, MAX_LIST, MAX_STRING, MAX_TOTAL
from kgate_policy.facts.schema import RECORDS, VARIABLES, VERSION

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kgate_policy.facts.schema import Field


def facts_page() -> str:
    """Return the page as Markdown."""
    lines = [
        "# Facts",
        "",
        "<!-- Written from policy/kgate_policy/facts/schema.py by `make docs`; do not edit. -->",
        "",
        f"What expressions may ask about, version `{VERSION}`. Names and types of a version never",
        "change; new facts may be added. Expressions are compiled against these types: a name that",
        "is not here, or a comparison of different types, is refused when the policy is read.",
        "",
        "A fact marked *sometimes* can be absent. Asking for an absent fact is an error, and an",
        "error never passes: test with `has(kernel.scan)` or ask with `kernel.?scan` first.",
        "",
        f"Limits: {MAX_TOTAL // 1024} KiB of facts per question, {MAX_LIST:,} items in one list,",
        f"{MAX_STRING:,} characters in one text, {MAX_DEPTH} nested containers. Facts beyond a",
        "limit are an error.",
        "",
        "## Variables",
        "",
        *_table(VARIABLES),
    ]
    for record in RECORDS:
        lines += ["", f"## {record.name}", "", record.text, "", *_table(record.fields)]
    return "\n".join(lines) + "\n"


def _table(fields: Iterable[Field]) -> list[str]:
    rows = ["| name | type | meaning |", "|---|---|---|"]
    for field in fields:
        text = f"*sometimes* · {field.text}" if field.sometimes else field.text
        rows.append(f"| `{field.name}` | `{field.type}` | {text} |")
    return rows
