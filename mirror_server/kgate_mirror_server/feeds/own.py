"""kgate's own feed: OSV records and VEX documents in one file, signed by a key of the role `feed`.

Format: `kgate.dev/advisory-feed/v1`, sealed like a bundle's document (`bundle.sealed`): a DSSE
envelope over an in-toto statement whose subject is the document's digest. The number in it only
grows. What the records mean is not looked at here, only that they can be read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from kgate_core import strictjson
from kgate_core.clock import read_time, write_time
from kgate_core.errors import InvalidInput, TrustError
from kgate_mirror_server.bundle.sealed import Kind, Sealed, seal
from kgate_mirror_server.settings.feeds import check_feed_name
from kgate_scanner.advisories.documents import OWN_FEED, read_document

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from kgate_core.digest import Digest
    from kgate_core.keys import PublicKey
    from kgate_scanner.advisories.collecting import Collected
    from kgate_signer.keys import KeyProvider

FEED: Final = Kind("advisory feed", OWN_FEED, "https://kgate.dev/advisory-feed/v1")
ROLE: Final = "feed"


@dataclass(frozen=True, slots=True)
class OwnFeed:
    """A signed feed that was read."""

    name: str
    sequence: int
    issued: datetime
    digest: Digest
    hint: str
    """Names the key that signed it."""


def is_own(data: bytes) -> bool:
    """Return whether bytes claim to be such a feed."""
    try:
        value = strictjson.loads(data, what=FEED.name, max_bytes=len(data), floats=True)
    except InvalidInput:
        return False
    schema = value.get("schema") if isinstance(value, dict) else None
    return isinstance(schema, str) and schema.startswith(OWN_FEED.rpartition("/")[0])


def read_own(data: bytes, keys: Mapping[str, PublicKey]) -> OwnFeed:
    """Check who signed a feed and read its head; raises TrustError, InvalidInput.

    `keys` are those that may sign feeds, by hint.
    """
    sealed = Sealed.parse(data, FEED)
    if not keys:
        raise TrustError(
            "this site knows no key that may sign advisory feeds",
            hint="compare the publisher's key over another way, then `kgate keys add feed KEY.pem`",
        )
    sealed.check(keys.get)
    document = sealed.document
    what = FEED.name
    strictjson.refuse_unknown(
        document, {"schema", "name", "sequence", "issued", "records", "statements"}, what=what
    )
    sequence = strictjson.take(document, "sequence", int, what=what)
    if sequence < 1:
        raise InvalidInput(f"{what}: its number is {sequence}")
    return OwnFeed(
        check_feed_name(strictjson.take(document, "name", str, what=what)),
        sequence,
        read_time(strictjson.take(document, "issued", str, what=what), what=what),
        sealed.digest,
        sealed.bundle.hint,
    )


def sign_own(
    collected: Collected, name: str, sequence: int, key: KeyProvider, now: datetime
) -> bytes:
    """Return documents as one signed feed; raises InvalidInput if one cannot be read."""
    records: list[Any] = []
    statements: list[Any] = []
    for path, data in collected.documents:
        content = read_document(data, what=path)
        if content.skipped:
            raise InvalidInput(f"{path}: {content.skipped}", hint="take it out of the folder")
        value = strictjson.loads(data, what=path, max_bytes=len(data))
        into = records if content.advisories else statements
        into += value if isinstance(value, list) else [value]
    document = {
        "schema": OWN_FEED,
        "name": check_feed_name(name),
        "sequence": sequence,
        "issued": write_time(now),
        "records": records,
        "statements": statements,
    }
    return seal(document, FEED, key)
