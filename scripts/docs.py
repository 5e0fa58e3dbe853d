"""Writes the parts of the documentation that follow from the code: `scripts/docs.py [--check]`.

* README.md, between the help marks: the text of `kgate --help`
* docs/threat-model.md, last column of the table: the test files that carry an attack out
* docs/rules/: one page for each scanner rule, from the scanner's register
* docs/policy.md, the transcript in it
* docs/policy-rules.md, docs/lint-rules.md, docs/facts.md: rules, and what expressions may ask about

Then it follows every relative link of every page. With --check nothing is written, and the exit
code is 1 if something would be. Text outside these places is never touched.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kgate_policy.facts.pages import facts_page
from kgate_policy.pages import lint_page, policy_page, rules_page
from kgate_scanner.rules import all_rules

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).parents[1]
HELP_MARKS: Final = ("<!-- help:begin -->\n", "<!-- help:end -->")
NOTE: Final = "<!-- Written by `make docs` from the code; change it there. -->\n\n"
_THREAT_ROW: Final = re.compile(r"^\| (T\d\d) \|(.*)\|[^|]*\|$", re.MULTILINE)
_ATTACK: Final = re.compile(r"^(?:async )?(?:def )?test_t(\d\d)(?:_|$)", re.MULTILINE)
_LINK: Final = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)(?:#[^)\s]*)?\)")
_HELP_WIDTH: Final = 100  # columns


def main() -> int:
    """Write or check all pages; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 on differences")
    check = parser.parse_args().check
    wanted = dict(pages())
    stale = [path for path, text in wanted.items() if read(path) != text]
    extra = sorted(set((ROOT / "docs/rules").glob("*.md")) - set(wanted))
    for path in stale + extra:
        print(f"{'differs' if check else 'written'}: {path.relative_to(ROOT)}")
    if not check:
        for path in stale:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(wanted[path], encoding="utf-8")
        for path in extra:
            path.unlink()
    broken = list(broken_links())
    for line in broken:
        print(line)
    return 1 if broken or (check and stale + extra) else 0


def read(path: Path) -> str:
    """Return the page as it is, or nothing."""
    return path.read_text(encoding="utf-8") if path.exists() else ""


def pages() -> Iterator[tuple[Path, str]]:
    """Yield every page that is written here, with the text it should have."""
    yield ROOT / "README.md", readme(read(ROOT / "README.md"))
    threats = ROOT / "docs/threat-model.md"
    yield threats, threat_table(read(threats))
    yield from scanner_rules(ROOT / "docs/rules")
    yield ROOT / "docs/policy-rules.md", rules_page()
    policy = ROOT / "docs/policy.md"
    yield policy, policy_page(read(policy))
    yield ROOT / "docs/lint-rules.md", lint_page()
    yield ROOT / "docs/facts.md", facts_page()


def readme(text: str) -> str:
    """Return the README with the present help text between its marks."""
    begin, end = HELP_MARKS
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    environment = os.environ | {"COLUMNS": str(_HELP_WIDTH), "NO_COLOR": "1"}
    kgate = Path(sys.executable).parent / "kgate"
    result = subprocess.run(  # noqa: S603  # our own program, beside this interpreter
        [kgate, "--help"], capture_output=True, text=True, check=True, env=environment
    )
    lines = "\n".join(line.rstrip() for line in result.stdout.strip().splitlines())
    return f"{before}{begin}```console\n$ kgate --help\n{lines}\n```\n{end}{after}"


def threat_table(text: str) -> str:
    """Return the threat model with the present tests in the last column of its table."""
    tests: dict[str, list[Path]] = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for number in sorted(attacks(path)):
            tests.setdefault(number, []).append(path.relative_to(ROOT))

    def row(found: re.Match[str]) -> str:
        links = ", ".join(
            f"[{path.stem.removeprefix('test_')}](../{path})" for path in tests.get(found[1], [])
        )
        return f"| {found[1]} |{found[2]}| {links or 'not yet'} |"

    return _THREAT_ROW.sub(row, text)


def attacks(path: Path) -> set[str]:
    """Return the attacks that a test file carries out: T03 by its own name or a test's."""
    found = _ATTACK.findall(path.stem + "\n" + path.read_text(encoding="utf-8"))
    return {f"T{number}" for number in found}


def scanner_rules(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield one page for each scanner rule, and the list of them."""
    listed = []
    for rule in all_rules().values():
        title = f"# {rule.id}: {rule.title}\n\n"
        body = f"Severity: {rule.severity.label}\n\n{rule.why}\n\n**What to do:** {rule.fix}\n"
        yield folder / f"{rule.id}.md", NOTE + title + body
        listed.append(f"| [{rule.id}]({rule.id}.md) | {rule.severity.label} | {rule.title} |\n")
    head = (
        "# What a scan can find\n\nA finding is what was seen; whether it matters is up to the"
        " [policy](../policy-rules.md).\n\n| rule | severity | title |\n|---|---|---|\n"
    )
    yield folder / "README.md", NOTE + head + "".join(listed)


def broken_links() -> Iterator[str]:
    """Yield a line for each relative link that leads nowhere."""
    for page in sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]):
        for target in _LINK.findall(page.read_text(encoding="utf-8")):
            if not (page.parent / target).exists():
                yield f"{page.relative_to(ROOT)}: {target} does not exist"


if __name__ == "__main__":
    sys.exit(main())
