"""What VEX statements change about the matches of one variant.

Only authors that the caller names are believed; what others say about the variant is noted and
changes nothing. Of one author the newest statement counts; between authors the worst does.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from kgate_core.vulnerabilities import IgnoredVex, Status
from kgate_scanner.advisories.model import Kind
from kgate_scanner.advisories.purls import read_purl
from kgate_scanner.advisories.versions import parse_version

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kgate_core.vulnerabilities import Vulnerability
    from kgate_scanner.advisories.inventory import Inventory
    from kgate_scanner.advisories.model import Advisory, VexStatement

_BUILD: Final = "build"


class Overrides:
    """The statements that are about one variant."""

    def __init__(
        self, statements: Iterable[VexStatement], inventory: Inventory, authors: frozenset[str]
    ) -> None:
        self._inventory = inventory
        self._authors = authors
        self._by_id: dict[str, list[VexStatement]] = {}
        self._ignored: set[tuple[str, str]] = set()
        for statement in statements:
            for name in statement.ids:
                self._by_id.setdefault(name, []).append(statement)

    @property
    def ignored(self) -> tuple[IgnoredVex, ...]:
        """Statements that were met and not believed, each author and vulnerability once."""
        return tuple(IgnoredVex(name, author) for name, author in sorted(self._ignored))

    def applied(
        self, advisory: Advisory, entry: Vulnerability, places: frozenset[str]
    ) -> Vulnerability:
        """Return the entry as it stands after the statements about it.

        `places` are the files that it is about; none means the whole variant.
        """
        newest: dict[str, VexStatement] = {}
        for name in sorted(advisory.names):
            for statement in self._by_id.get(name, ()):
                if not self._covers(statement, places):
                    continue
                if statement.author not in self._authors:
                    self._ignored.add((advisory.id, statement.author))
                    continue
                before = newest.get(statement.author)
                if before is None or _rank(statement) > _rank(before):
                    newest[statement.author] = statement
        if not newest:
            return entry
        said = [newest[author] for author in sorted(newest)]
        if against := [item for item in said if item.status is Status.AFFECTED]:
            return _with(entry, Status.AFFECTED, against[0])
        if any(item.status is Status.UNKNOWN for item in said):
            return entry  # somebody is still looking: what the advisory says stands
        last = max(said, key=_rank)
        return _with(entry, last.status, last)

    def _covers(self, statement: VexStatement, places: frozenset[str]) -> bool:
        """Return whether the products of a statement are all that an entry is about."""
        covered: set[str] = set()
        for names in statement.products:
            parts = [self._places(name) for name in names]
            if any(part is None for part in parts):
                continue  # not this variant
            narrow = [part for part in parts if part]
            if not narrow:
                return True  # the whole variant
            covered |= frozenset.intersection(*narrow)
        return bool(places) and places <= covered

    def _places(self, product: str) -> frozenset[str] | None:
        """Return the files that a product is, none for the whole variant, None for no part."""
        inventory = self._inventory
        if product.startswith("sha256:"):
            table = inventory.files if product in inventory.files else inventory.images
            return table.get(product)
        named = read_purl(product)
        if named is None:
            return None
        if named.kind is Kind.PACKAGE:
            return self._package(named.name, named.version)
        if named.name != inventory.repo or named.version not in {"", inventory.commit}:
            return None
        if named.origin and named.origin.rstrip("/") != inventory.origin:
            return None
        if not named.subpath:
            return frozenset()
        head, _, rest = named.subpath.partition("/")
        variant, _, path = rest.partition("/")
        if head != _BUILD or variant != inventory.variant:
            return None
        return frozenset((path,)) if path else frozenset()

    def _package(self, name: str, version: str) -> frozenset[str] | None:
        places = [
            part.places
            for part in self._inventory.parts
            if (part.kind, part.name) == (Kind.PACKAGE, name)
            and (not version or (part.version and part.version == parse_version(version)))
        ]
        return frozenset().union(*places) if places else None


def _rank(statement: VexStatement) -> tuple[object, ...]:
    """Order by time; of two of one moment the worse counts."""
    worse = {Status.NOT_AFFECTED: 0, Status.FIXED: 1, Status.UNKNOWN: 2, Status.AFFECTED: 3}
    return (statement.stated, worse[statement.status], statement.justification, statement.statement)


def _with(entry: Vulnerability, status: Status, statement: VexStatement) -> Vulnerability:
    return replace(
        entry,
        status=status,
        justification=statement.justification,
        author=statement.author,
        statement=statement.statement,
    )
