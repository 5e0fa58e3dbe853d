"""Say what lies on a disc without taking anything in: which bundle, which parts, what is in it.

Whether the signature counts is said beside it; only the parts' outsides are looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kgate_core.digest import Digest
from kgate_core.errors import KgateError
from kgate_mirror_server.bundle.carried import MAX_BYTES, Carried
from kgate_mirror_server.bundle.document import BundleDocument
from kgate_mirror_server.bundle.parts import (
    choose_bundle,
    find_parts,
    locate,
    read_content,
    read_head,
)
from kgate_mirror_server.bundle.senders import open_bundle

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from kgate_core.trust import Revocation
    from kgate_mirror_server.bundle.parts import Located, PartFile
    from kgate_mirror_server.bundle.senders import Sender


@dataclass(frozen=True, slots=True)
class Inspected:
    """What is on a disc."""

    document: BundleDocument
    digest: Digest
    document_size: int
    parts: tuple[Located, ...]
    publications: tuple[Carried, ...]
    """Those whose document lies in a part that is here."""
    revoked: Mapping[Digest, Revocation]
    trouble: str
    """Why its signature does not count here; empty if it does."""
    root: Digest
    """Of the root that it carries, to be compared with its sender; never believed."""


def inspect_bundle(places: Sequence[Path], known: list[Sender], now: datetime) -> Inspected:
    """Look at the parts in these folders; raises NotFound, InvalidInput, IntegrityError."""
    found = find_parts(places)
    chosen = choose_bundle(found)[0]
    if chosen.sealed is None:
        raise AssertionError("the chosen parts have a description")
    document = BundleDocument.from_json(chosen.sealed.document)
    located = tuple(locate(found, chosen, document))
    head = read_head(chosen, document)
    trust = {
        path.removeprefix("trust/"): data
        for path, data in head.items()
        if path.startswith("trust/")
    }
    revoked: Mapping[Digest, Revocation] = {}
    trouble = ""
    try:
        revoked = open_bundle(chosen.sealed, trust, known, now).trusted.revoked_digests
    except KgateError as exc:
        trouble = exc.message
    return Inspected(
        document,
        chosen.sealed.digest,
        len(chosen.raw),
        located,
        _publications(chosen, document, located),
        revoked,
        trouble,
        Digest.of(trust["1.root.json"]),
    )


def _publications(
    chosen: PartFile, document: BundleDocument, located: Sequence[Located]
) -> tuple[Carried, ...]:
    wanted = set(document.publications)
    found = {}
    for part in located:
        if part.number is None or part.trouble:
            continue
        with part.path.open("rb") as stream:
            for placed in document.place(part.number, len(chosen.raw)):
                entry = placed.entry
                if entry is None or entry.blob not in wanted or entry.cut:
                    continue
                if entry.size > MAX_BYTES:
                    continue
                data = b"".join(read_content(stream, placed))
                if Digest.of(data) == entry.blob:
                    found[entry.blob] = Carried.parse(data)
    return tuple(found[digest] for digest in document.publications if digest in found)
