"""CSAF 2.0 security advisories: the product tree, and which products a vulnerability affects.

Format: OASIS CSAF 2.0, sections 3.2.2 (product tree) and 3.2.3 (vulnerabilities). Versions come as
`vers:` texts, plain versions, or the sentences that NVIDIA writes (`prose`); what is none of these
stays unparsed. That a product is fixed or not affected is not used: only what is affected is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from kgate_core.digest import Digest
from kgate_core.errors import InvalidInput
from kgate_scanner.advisories import fields
from kgate_scanner.advisories.model import Advisory, Kind, Target
from kgate_scanner.advisories.products import product_of, words_of
from kgate_scanner.advisories.prose import parse_prose, parse_vers
from kgate_scanner.advisories.purls import read_purl
from kgate_scanner.advisories.severities import severity_of_score, severity_of_vector, worst

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kgate_core.evidence import Severity

_AFFECTED: Final = ("known_affected", "first_affected", "last_affected")
_OPEN: Final = "under_investigation"
_NOTES: Final = frozenset({"description", "summary", "details", "general"})
_VERSIONED: Final = frozenset({"product_version", "product_version_range"})
MAX_BRANCHES: Final = 20_000  # branches of one product tree


def read_csaf(value: Mapping[str, Any], *, what: str) -> tuple[Advisory, ...]:
    """Return an advisory for each vulnerability of a document; raises InvalidInput."""
    document = fields.mapping(value, "document")
    version = fields.text(document, "csaf_version")
    if version not in {"2.0", "2.1"}:
        raise InvalidInput(f"{what}: CSAF {version!r} is not read; 2.0 and 2.1 are")
    tracking = fields.mapping(document, "tracking")
    name = fields.required(tracking, "id", what=what)
    modified = fields.date(tracking, "current_release_date", what=what)
    tree = fields.mapping(value, "product_tree")
    products = dict(_products(tree, what))
    products |= dict(_related(tree, products))
    found = []
    for number, item in enumerate(fields.items(value, "vulnerabilities")):
        ids = [fields.text(one, "text") for one in fields.items(item, "ids")]
        cve = fields.text(item, "cve")
        own = cve or next(filter(None, ids), f"{name}#{number + 1}")
        found.append(
            Advisory(
                own[: fields.MAX_ID],
                modified,
                _severity(item, document),
                tuple(_targets(item, products)),
                tuple(sorted({name, *filter(None, ids)} - {own})),
                _text(item),
            )
        )
    return tuple(found)


def _products(tree: Mapping[str, Any], what: str) -> Iterator[tuple[str, Target | None]]:
    """Yield every product id with what it means; None if it cannot be in a kernel."""
    left = MAX_BRANCHES
    pending: list[tuple[Mapping[str, Any], tuple[str, ...]]] = [(tree, ())]
    while pending:
        node, names = pending.pop()
        for branch in fields.items(node, "branches"):
            left -= 1
            if left < 0:
                raise InvalidInput(f"{what}: more than {MAX_BRANCHES} branches")
            here = fields.text(branch, "name")
            pending.append((branch, (here, *names)))
            product = fields.mapping(branch, "product")
            if product:
                category = fields.text(branch, "category")
                yield fields.text(product, "product_id"), _product(product, here, names, category)
    for product in fields.items(tree, "full_product_names"):
        yield fields.text(product, "product_id"), _product(product, "", (), "product_version")


def _related(
    tree: Mapping[str, Any], known: Mapping[str, Target | None]
) -> Iterator[tuple[str, Target | None]]:
    """Yield products that are components of others: they are what the component is."""
    for relation in fields.items(tree, "relationships"):
        product = fields.mapping(relation, "full_product_name")
        own = _product(product, "", (), "product_version")
        part = known.get(fields.text(relation, "product_reference"))
        yield fields.text(product, "product_id"), part or own


def _product(
    product: Mapping[str, Any], here: str, above: tuple[str, ...], category: str
) -> Target | None:
    helper = fields.mapping(product, "product_identification_helper")
    name = fields.text(product, "name")
    if values := frozenset(_digests(helper)):
        return Target(Kind.FILE, values=values)
    if (named := read_purl(fields.text(helper, "purl"))) is not None:
        if named.version:
            return Target(named.kind, named.name, frozenset((named.version,)))
        return _versioned(named.kind, named.name, (here, name), (), category)
    known = product_of(name, here, *above)
    if known is None:
        return None
    words = words_of(known, name, here, *above)
    return _versioned(known.kind, known.name, (here, name), words, category)


def _versioned(
    kind: Kind, name: str, texts: tuple[str, ...], words: tuple[str, ...], category: str
) -> Target:
    if category not in _VERSIONED:
        return Target(kind, name, every=True)  # the product as such: every version of it
    for text in texts:
        found = parse_vers(text) or parse_prose(text, words)
        if found is not None:
            return Target(kind, name, ranges=(found,))
    return Target(kind, name, unparsed=(texts[-1] or texts[0],))


def _digests(helper: Mapping[str, Any]) -> Iterator[str]:
    for group in fields.items(helper, "hashes"):
        for item in fields.items(group, "file_hashes"):
            if fields.text(item, "algorithm").lower() == "sha256":
                try:
                    yield str(Digest(fields.text(item, "value").lower()))
                except InvalidInput:
                    continue


def _targets(item: Mapping[str, Any], products: Mapping[str, Target | None]) -> Iterator[Target]:
    status = fields.mapping(item, "product_status")
    listed = {name for key in _AFFECTED for name in fields.texts(status, key)}
    for name in sorted(listed):
        if (target := products.get(name)) is not None:
            yield target
    for name in sorted(set(fields.texts(status, _OPEN)) - listed):
        if (target := products.get(name)) is not None:
            yield Target(target.kind, target.name, unparsed=("under investigation",))


def _severity(item: Mapping[str, Any], document: Mapping[str, Any]) -> Severity:
    found = []
    for score in fields.items(item, "scores"):
        for key in ("cvss_v4", "cvss_v3"):
            cvss = fields.mapping(score, key)
            found.append(severity_of_score(cvss.get("baseScore")))
            found.append(severity_of_vector(cvss.get("vectorString")))
    for metric in fields.items(item, "metrics"):  # CSAF 2.1
        content = fields.mapping(metric, "content")
        found += [
            severity_of_score(fields.mapping(content, key).get("baseScore"))
            for key in ("cvss_v4", "cvss_v3")
        ]
    if not any(level is not None for level in found):
        return worst(found, fields.text(fields.mapping(document, "aggregate_severity"), "text"))
    return worst(found)


def _text(item: Mapping[str, Any]) -> str:
    notes = [
        fields.text(note, "text")
        for note in fields.items(item, "notes")
        if fields.text(note, "category") in _NOTES
    ]
    return "\n".join(filter(None, (fields.text(item, "title"), *notes)))
