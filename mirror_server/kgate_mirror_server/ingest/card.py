"""A repository's README.md as evidence: its size, the fields of its YAML head, its headings.

The text itself is not kept or served, and nothing in it is believed: it is the publisher's word.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from kgate_core.errors import IntegrityError, InvalidInput
from kgate_mirror_server.upstream.gitoid import blob_oid
from kgate_policy.located import read_document

if TYPE_CHECKING:
    from kgate_core.kernel import KernelRef, Revision
    from kgate_mirror_server.ingest.resolve import Source
    from kgate_mirror_server.ports import UpstreamFile

CARD_FILE: Final = "README.md"
MAX_CARD: Final = 1024**2  # bytes; a larger one is recorded by its size and not read
MAX_HEADINGS: Final = 50
MAX_HEADING: Final = 200  # characters of one heading that are kept
MAX_FIELDS: Final = 100


def read_card(
    source: Source, repo: KernelRef, commit: Revision, file: UpstreamFile
) -> dict[str, Any]:
    """Fetch a README.md and return what it holds; raises IntegrityError, UpstreamError."""
    if file.size > MAX_CARD or file.lfs_sha256 is not None:
        return {"size": file.size, "fields": [], "headings": []}
    data = b"".join(source.upstream.read(repo, commit, file))
    source.fetched_bytes += len(data)
    if len(data) != file.size or blob_oid(data) != file.oid:
        raise IntegrityError(
            f"{repo}@{commit.short}: {CARD_FILE}: other bytes than the tree promises",
            hint="upstream sent other bytes than it listed; fetch it again",
        )
    return parse_card(data)


def parse_card(data: bytes) -> dict[str, Any]:
    """Return the facts about a README.md; what cannot be read counts as absent."""
    text = data.decode("utf-8", "replace")
    fields: list[str] = []
    if text.startswith("---\n"):
        head, found, rest = text.removeprefix("---\n").partition("\n---")
        if found:
            text, fields = rest, _fields(head)
    return {"size": len(data), "fields": fields, "headings": _headings(text)}


def _fields(head: str) -> list[str]:
    try:
        # Anybody's text: this reader refuses the anchors that a small file could grow from.
        value = read_document(head.encode(), source=CARD_FILE).plain()
    except InvalidInput:
        return []
    if not isinstance(value, dict):
        return []
    return sorted(str(key) for key, item in value.items() if item not in (None, "", [], {}))[
        :MAX_FIELDS
    ]


def _headings(text: str) -> list[str]:
    found = []
    fenced = False
    for line in text.splitlines():
        if line.startswith(("```", "~~~")):
            fenced = not fenced
        elif line.startswith("#") and not fenced and (title := line.strip("# \t")):
            found.append(title[:MAX_HEADING])
    return found[:MAX_HEADINGS]
