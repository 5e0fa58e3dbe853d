"""The audit log's head, signed by the timestamp key beside the trust documents: an anchor.

Entries that are deleted from the end of the log leave no gap; this file tells that they were there.
It is written anew with each timestamp, and only over a log that still reaches the head before: a
log that was cut keeps its old anchor and is found by `kgate audit verify`. Whoever holds host,
database and timestamp key can write both anew; exports and backups elsewhere tell then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kgate_core import strictjson
from kgate_core.clock import write_time
from kgate_core.errors import IntegrityError, TrustError
from kgate_core.tuf import Root
from kgate_mirror_server.bundle.sealed import Kind, Sealed, seal
from kgate_mirror_server.catalog.audit import Head
from kgate_mirror_server.trust.files import read_trust, replace_file

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from kgate_core.keys import PublicKey
    from kgate_mirror_server.catalog.audit import AuditLog
    from kgate_signer.keys import KeyProvider

FILE_NAME: Final = "audit.head"
KIND: Final = Kind("audit.head", "kgate.dev/audit-head/v1", "https://kgate.dev/audit-head/v1")


def sign_head(folder: Path, log: AuditLog, key: KeyProvider, now: datetime) -> None:
    """Write the signed head of the log; raises IntegrityError if the log lacks the one before."""
    path = folder / FILE_NAME
    head = log.head()
    if path.exists():
        before = _read(path)
        if before == head:
            return
        if log.at(before.sequence) != before:
            raise IntegrityError(
                f"the audit log does not reach the head that was signed, entry {before.sequence}",
                hint="`kgate audit verify` says what is missing",
            )
    document = {
        "schema": KIND.schema,
        "sequence": head.sequence,
        "digest": head.digest,
        "signedAt": write_time(now),
    }
    replace_file(path, seal(document, KIND, key))


def read_head(folder: Path) -> Head | None:
    """Return the signed head, or None if none was ever signed; raises TrustError, InvalidInput."""
    path = folder / FILE_NAME
    if not path.exists():
        return None
    keys = timestamp_keys(folder)
    sealed = Sealed.parse(path.read_bytes(), KIND)
    sealed.check(keys.get)
    return _head(sealed)


def _read(path: Path) -> Head:
    return _head(Sealed.parse(path.read_bytes(), KIND))


def _head(sealed: Sealed) -> Head:
    return Head(
        strictjson.take(sealed.document, "sequence", int, what=KIND.name),
        strictjson.take(sealed.document, "digest", str, what=KIND.name),
    )


def timestamp_keys(folder: Path) -> dict[str, PublicKey]:
    """Return the keys that ever held the timestamp role: a rotation leaves an older head valid."""
    found: dict[str, PublicKey] = {}
    for data in read_trust(folder).roots:
        root = Root.pinned(data)
        for keyid in root.roles["timestamp"].keyids:
            found[root.keys[keyid].hint] = root.keys[keyid]
    if not found:
        raise TrustError("no key holds the timestamp role")
    return found
