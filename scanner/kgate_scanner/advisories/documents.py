"""Reads one document of a feed, of whatever known format, strictly.

Documents come from outside: their fields are taken if they have the expected type, a malformed
document is refused as a whole, and a document of another kind is named and passed over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from kgate_core import strictjson
from kgate_scanner.advisories import csaf, osv, vex
from kgate_scanner.advisories.model import Content

if TYPE_CHECKING:
    from kgate_scanner.advisories.model import VexStatement

MAX_DOCUMENT: Final = 32 * 1024**2  # bytes; the largest known OSV record has 2 MB
OWN_FEED: Final = "kgate.dev/advisory-feed/v1"
"""Schema of kgate's own feed: OSV records, and VEX documents, in one signed file."""


def read_document(data: bytes, *, what: str) -> Content:
    """Return what a document holds; raises InvalidInput if it is malformed.

    OSV records (one, or a list), CSAF 2.0, CycloneDX, OpenVEX and kgate's own feed are known. Its
    signature is not checked here.
    """
    value = strictjson.loads(data, what=what, max_bytes=MAX_DOCUMENT, floats=True)
    if isinstance(value, list):
        return _read_all(value, what, "it is a list of nothing known")
    if isinstance(value, dict) and value.get("schema") == OWN_FEED:
        records = strictjson.take(value, "records", list, what=what)
        statements = strictjson.take(value, "statements", list, what=what)
        return _read_all([*records, *statements], what, "")
    return _read(value, what)


def _read_all(values: list[Any], what: str, otherwise: str) -> Content:
    parts = [_read(item, f"{what}, record {number + 1}") for number, item in enumerate(values)]
    advisories = tuple(one for part in parts for one in part.advisories)
    statements = tuple(one for part in parts for one in part.statements)
    dates = tuple(date for part in parts for date in part.dates)
    return Content(advisories, statements, "" if advisories or statements else otherwise, dates)


def _read(value: Any, what: str) -> Content:  # noqa: ANN401  # JSON from outside
    if not isinstance(value, dict):
        return Content(skipped="it is not a JSON object")
    document = value.get("document")
    if isinstance(document, dict) and "csaf_version" in document:
        advisories = csaf.read_csaf(value, what=what)
    elif value.get("bomFormat") == "CycloneDX":
        return _said(vex.read_cyclonedx(value, what=what))
    elif "openvex" in str(value.get("@context", "")):
        return _said(vex.read_openvex(value, what=what))
    elif isinstance(value.get("id"), str) and "modified" in value:
        advisories = (osv.read_osv(value, what=what),)
    else:
        return Content(skipped="its format is not known")
    if not advisories:
        return Content(skipped="it holds no vulnerabilities")
    return Content(advisories, (), "", tuple(item.modified for item in advisories))


def _said(statements: tuple[VexStatement, ...]) -> Content:
    return Content((), statements, "" if statements else "it holds no VEX statements")
