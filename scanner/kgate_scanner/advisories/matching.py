"""Compares advisories with the parts of one variant.

The answer about one advisory is the worst over all that it is about. A toolkit's advisory that is
about programs only is set aside by kgate itself, as a VEX statement would: a disassembler is in no
kernel. What cannot be decided is `unknown`. Statements of other people are in `overrides`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kgate_core.vulnerabilities import Status, Vulnerability, VulnerabilityReport
from kgate_scanner.advisories.model import Kind
from kgate_scanner.advisories.overrides import Overrides
from kgate_scanner.advisories.products import libraries_in, only_tools, tools_in
from kgate_scanner.advisories.versions import Within, parse_version

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from kgate_core.digest import Digest
    from kgate_scanner.advisories.inventory import Inventory, Part
    from kgate_scanner.advisories.model import Advisory, Target, VexStatement

MATCHER: Final = "kgate-advisories/1"
"""Rises whenever equal advisories and variants may give another report."""
AUTHOR: Final = f"{MATCHER} (rule tools-only)"
MAX_PLACES: Final = 8  # files named in one entry
_ORDER: Final = (Status.AFFECTED, Status.UNKNOWN, Status.NOT_AFFECTED)


@dataclass(frozen=True, slots=True)
class Feed:
    """Everything that is compared with a variant."""

    digest: Digest
    date: datetime
    advisories: tuple[tuple[str, Advisory], ...]
    """With the name of the source of each."""
    statements: tuple[VexStatement, ...]


@dataclass(frozen=True, slots=True)
class _Match:
    status: Status
    seen: str
    places: frozenset[str]


def match(
    feed: Feed, inventory: Inventory, subject: Digest, vex_authors: Iterable[str] = ()
) -> VulnerabilityReport:
    """Return every advisory of a feed that is about something in a variant.

    `vex_authors` are those whose statements count.
    """
    overrides = Overrides(feed.statements, inventory, frozenset(vex_authors))
    found = []
    for source, advisory in feed.advisories:
        if advisory.withdrawn:
            continue
        matches = [hit for target in advisory.targets for hit in _hits(target, advisory, inventory)]
        if matches:
            found.append(overrides.applied(advisory, *_joined(source, advisory, matches)))
    found.sort(key=lambda item: (-item.severity, item.id, item.source))
    return VulnerabilityReport(
        subject, MATCHER, feed.digest, feed.date, tuple(found), overrides.ignored
    )


def _joined(
    source: str, advisory: Advisory, matches: list[_Match]
) -> tuple[Vulnerability, frozenset[str]]:
    """Return one entry for all matches, with every place of those that decide."""
    worst = min((hit.status for hit in matches), key=_ORDER.index)
    deciding = [hit for hit in matches if hit.status is worst]
    places = frozenset(place for hit in deciding for place in hit.places)
    aside = worst is Status.NOT_AFFECTED
    entry = Vulnerability(
        advisory.id,
        advisory.severity,
        worst,
        source,
        "; ".join(dict.fromkeys(hit.seen for hit in deciding)),
        tuple(sorted(set(advisory.aliases))),
        tuple(sorted(places)[:MAX_PLACES]),
        "vulnerable_code_not_present" if aside else "",
        AUTHOR if aside else "",
        f"about {', '.join(tools_in(advisory.text))} only, which are in no kernel" if aside else "",
    )
    whole = any(not hit.places for hit in deciding)
    return entry, frozenset() if whole else places


def _hits(target: Target, advisory: Advisory, inventory: Inventory) -> Iterator[_Match]:
    match target.kind:
        case Kind.REPO:
            yield from _repository(target, inventory)
        case Kind.FILE | Kind.IMAGE | Kind.BUILD_ID:
            table = {
                Kind.FILE: inventory.files,
                Kind.IMAGE: inventory.images,
                Kind.BUILD_ID: inventory.build_ids,
            }[target.kind]
            for value in sorted(target.values & table.keys()):
                yield _Match(Status.AFFECTED, f"{target.kind} {value}", table[value])
        case Kind.TOOLKIT | Kind.PACKAGE:
            for part in inventory.parts:
                if (part.kind, part.name) == (target.kind, target.name):
                    yield from _versioned(target, part, advisory, inventory)


def _repository(target: Target, inventory: Inventory) -> Iterator[_Match]:
    if target.name != inventory.repo or inventory.commit in target.clean:
        return
    name = f"{inventory.repo}@{inventory.commit[:12]}"
    if target.every or inventory.commit in target.values:
        yield _Match(Status.AFFECTED, f"commit {name}", frozenset())
    elif target.unparsed:
        said = ", ".join(target.unparsed)
        yield _Match(
            Status.UNKNOWN, f"{name} and {said}: the order of commits is not known", frozenset()
        )


def _versioned(
    target: Target, part: Part, advisory: Advisory, inventory: Inventory
) -> Iterator[_Match]:
    name = f"{part.name} {part.kind if part.kind is Kind.TOOLKIT else ''}".strip()
    seen = f"{name} {part.written or '(version unknown)'}"
    answer = _within(target, part)
    if answer is Within.NO:
        return
    if answer is Within.UNKNOWN:
        why = f" and {', '.join(target.unparsed)!r}" if target.unparsed else ""
        yield _Match(_unless_tools(part, advisory, Status.UNKNOWN), seen + why, part.places)
        return
    status = _unless_tools(part, advisory, Status.AFFECTED)
    if part.kind is Kind.TOOLKIT and status is Status.AFFECTED:
        libraries = libraries_in(advisory.text)
        if libraries and not inventory.linked & {item.name for item in libraries}:
            # Not linked: it could still have been linked statically, which leaves no trace.
            names = ", ".join(item.name for item in libraries)
            seen += f"; it neither ships nor needs {names}, but may hold a static copy"
            status = Status.UNKNOWN
    yield _Match(status, seen, part.places)


def _unless_tools(part: Part, advisory: Advisory, status: Status) -> Status:
    is_aside = part.kind is Kind.TOOLKIT and only_tools(advisory.text)
    return Status.NOT_AFFECTED if is_aside else status


def _within(target: Target, part: Part) -> Within:
    if target.every:
        return Within.YES
    if part.version is None:
        return Within.UNKNOWN
    coarse = part.kind is Kind.TOOLKIT
    answers = [span.holds(part.version, coarse=coarse) for span in target.ranges]
    for text in target.values:
        version = parse_version(text)
        if version is None:
            # Written out, so an odd one (a pre-release) is simply another version.
            continue
        answers.append(Within.YES if _same(version, part.version) else Within.NO)
    if Within.YES in answers:
        return Within.YES
    return Within.UNKNOWN if Within.UNKNOWN in answers or target.unparsed else Within.NO


def _same(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    length = max(len(one), len(other))
    return one + (0,) * (length - len(one)) == other + (0,) * (length - len(other))
