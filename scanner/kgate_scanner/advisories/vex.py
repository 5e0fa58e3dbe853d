"""VEX: who says that a vulnerability does not concern a product, and why.

Formats: OpenVEX 0.2.0, and the `vulnerabilities` of CycloneDX 1.4 to 1.7. A statement needs an
author, a product and, to set something aside, a justification of its format's list. Whether its
author may say so is not known here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from kgate_core.digest import Digest
from kgate_core.errors import InvalidInput
from kgate_core.vulnerabilities import Status
from kgate_scanner.advisories import fields
from kgate_scanner.advisories.model import VexStatement

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_OPENVEX: Final = {
    "not_affected": Status.NOT_AFFECTED,
    "affected": Status.AFFECTED,
    "fixed": Status.FIXED,
    "under_investigation": Status.UNKNOWN,
}
_CYCLONEDX: Final = {
    "not_affected": Status.NOT_AFFECTED,
    "false_positive": Status.NOT_AFFECTED,
    "exploitable": Status.AFFECTED,
    "resolved": Status.FIXED,
    "resolved_with_pedigree": Status.FIXED,
    "in_triage": Status.UNKNOWN,
}
JUSTIFICATIONS: Final = frozenset(
    {
        # OpenVEX
        "component_not_present",
        "vulnerable_code_not_present",
        "vulnerable_code_not_in_execute_path",
        "vulnerable_code_cannot_be_controlled_by_adversary",
        "inline_mitigations_already_exist",
        # CycloneDX
        "code_not_present",
        "code_not_reachable",
        "requires_configuration",
        "requires_dependency",
        "requires_environment",
        "protected_by_compiler",
        "protected_at_runtime",
        "protected_at_perimeter",
        "protected_by_mitigating_control",
    }
)


def read_openvex(value: Mapping[str, Any], *, what: str) -> tuple[VexStatement, ...]:
    """Return the statements of an OpenVEX document; raises InvalidInput."""
    author = fields.required(value, "author", what=what)
    fields.date(value, "timestamp", what=what)  # must be there; statements may have their own
    found = []
    for number, item in enumerate(fields.items(value, "statements")):
        where = f"{what}, statement {number + 1}"
        vulnerability = fields.mapping(item, "vulnerability")
        ids = {fields.text(vulnerability, "name"), *fields.texts(vulnerability, "aliases")}
        dated = item if "timestamp" in item else value
        found.append(
            _statement(
                VexStatement(
                    frozenset(filter(None, ids)),
                    tuple(_openvex_products(item)),
                    _status(_OPENVEX, fields.text(item, "status"), where),
                    author,
                    fields.date(dated, "timestamp", what=where),
                    fields.text(item, "justification"),
                    fields.text(item, "impact_statement") or fields.text(item, "status_notes"),
                ),
                where,
            )
        )
    return tuple(found)


def read_cyclonedx(value: Mapping[str, Any], *, what: str) -> tuple[VexStatement, ...]:
    """Return the analyses of a CycloneDX document; raises InvalidInput.

    A document without analyses is an SBOM and gives none.
    """
    judged = [
        item for item in fields.items(value, "vulnerabilities") if fields.mapping(item, "analysis")
    ]
    if not judged:
        return ()
    metadata = fields.mapping(value, "metadata")
    author = _author(metadata)
    if not author:
        raise InvalidInput(f"{what}: nobody is named as its author (metadata.authors or supplier)")
    products = dict(_components(value))
    found = []
    for number, item in enumerate(judged):
        where = f"{what}, vulnerability {number + 1}"
        analysis = fields.mapping(item, "analysis")
        dated = next((one for one in (analysis, item, metadata) if _dated(one)), metadata)
        references = {fields.text(one, "id") for one in fields.items(item, "references")}
        found.append(
            _statement(
                VexStatement(
                    frozenset(filter(None, {fields.text(item, "id"), *references})),
                    tuple(
                        product
                        for one in fields.items(item, "affects")
                        for product in _affected(fields.text(one, "ref"), products)
                    ),
                    _status(_CYCLONEDX, fields.text(analysis, "state"), where),
                    author,
                    fields.date(dated, _dated(dated) or "timestamp", what=where),
                    fields.text(analysis, "justification"),
                    fields.text(analysis, "detail"),
                ),
                where,
            )
        )
    return tuple(found)


def _statement(found: VexStatement, what: str) -> VexStatement:
    if not found.ids or not any(found.products):
        raise InvalidInput(f"{what}: it names no vulnerability or no product")
    if found.status is Status.NOT_AFFECTED and found.justification not in JUSTIFICATIONS:
        raise InvalidInput(
            f"{what}: not_affected needs a justification, found {found.justification!r}",
            hint=f"known are {', '.join(sorted(JUSTIFICATIONS))}",
        )
    return found


def _status(known: Mapping[str, Status], word: str, what: str) -> Status:
    if word not in known:
        raise InvalidInput(f"{what}: unknown status {word!r}; known are {', '.join(known)}")
    return known[word]


def _openvex_products(item: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for product in fields.items(item, "products"):
        for name in _openvex_names(product):
            parts = list(fields.items(product, "subcomponents"))
            if not parts:
                yield (name,)
            # A part narrows what is meant: both must be what the variant is.
            for part in parts:
                yield from ((name, inner) for inner in _openvex_names(part))


def _openvex_names(one: Mapping[str, Any]) -> Iterator[str]:
    named = fields.text(one, "@id"), fields.text(fields.mapping(one, "identifiers"), "purl")
    yield from dict.fromkeys(name for name in named if name)
    if digest := fields.text(fields.mapping(one, "hashes"), "sha-256"):
        yield str(Digest(digest.lower()))


def _affected(ref: str, known: Mapping[str, tuple[str, ...]]) -> Iterator[tuple[str, ...]]:
    # A reference into another BOM ends in the component's own reference there.
    yield from ((name,) for name in known.get(ref, (ref,)) if name)


def _components(value: Mapping[str, Any]) -> Iterator[tuple[str, tuple[str, ...]]]:
    main = fields.mapping(fields.mapping(value, "metadata"), "component")
    for one in (main, *fields.items(value, "components")):
        reference = fields.text(one, "bom-ref")
        digests = (
            f"sha256:{fields.text(item, 'content').lower()}"
            for item in fields.items(one, "hashes")
            if fields.text(item, "alg") == "SHA-256"
        )
        names = tuple(filter(None, (fields.text(one, "purl"), *digests)))
        if reference and names:
            yield reference, names


def _author(metadata: Mapping[str, Any]) -> str:
    for one in fields.items(metadata, "authors"):
        if found := fields.text(one, "email") or fields.text(one, "name"):
            return found
    for key in ("manufacturer", "supplier"):
        if found := fields.text(fields.mapping(metadata, key), "name"):
            return found
    return ""


def _dated(one: Mapping[str, Any]) -> str:
    keys = ("lastUpdated", "firstIssued", "updated", "published", "created", "timestamp")
    return next((key for key in keys if fields.text(one, key)), "")
