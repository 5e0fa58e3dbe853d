"""Digests that this mirror withdraws although no root key has signed their revocation yet.

A pinned sender's revocation has to count on an island whose root key lies in a safe. So it counts
for the mirror itself at once: what it names is neither served, admitted nor exported any more. Pods
that hold a copy learn of it only when a person counter-signs it into the trust metadata. The file
`withheld.json` lies beside that metadata, is not signed and is not served; whoever can write there
can do worse.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from kgate_core import strictjson
from kgate_core.clock import read_time, write_time
from kgate_core.digest import Digest
from kgate_core.errors import InvalidInput, TrustError
from kgate_core.trust import Revocation
from kgate_mirror_server.trust.files import replace_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from kgate_core.trust import TrustedRoot

NAME: Final = "withheld.json"
SCHEMA: Final = "kgate.dev/withheld/v1"
_MAX_BYTES: Final = 16 * 1024**2  # some 80,000 digests


@dataclass(frozen=True, slots=True)
class Withheld:
    """A revocation that waits for a signature."""

    revocation: Revocation
    sender: str
    """Site that revoked it."""


def read_withheld(folder: Path) -> dict[Digest, Withheld]:
    """Return what waits; raises InvalidInput if the file was edited, so that nothing is served."""
    path = folder / NAME
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as exc:
        raise TrustError(f"{path}: cannot be read ({exc.strerror})") from exc
    what = str(path)
    document = strictjson.loads(data, what=what, max_bytes=_MAX_BYTES)
    if strictjson.take(document, "schema", str, what=what) != SCHEMA:
        raise InvalidInput(f"{what}: unknown schema {document['schema']!r}")
    return {
        Digest.parse(digest): Withheld(
            Revocation(
                read_time(strictjson.take(item, "since", str, what=what), what=what),
                strictjson.take(item, "reason", str, what=what),
            ),
            strictjson.take(item, "sender", str, what=what),
        )
        for digest, item in strictjson.take(document, "digests", dict, what=what).items()
    }


def withhold(folder: Path, new: Mapping[Digest, Withheld]) -> None:
    """Add digests; those that wait already stay as they are."""
    _write(folder, {**new, **read_withheld(folder)})


def release(folder: Path, digests: Iterable[Digest]) -> None:
    """Take digests off the list: a signature says it now, or nobody does any more."""
    gone = set(digests)
    waiting = read_withheld(folder)
    if gone & set(waiting):
        _write(folder, {digest: item for digest, item in waiting.items() if digest not in gone})


def with_withheld(trusted: TrustedRoot, folder: Path) -> TrustedRoot:
    """Return the trust metadata as this mirror obeys it."""
    waiting = {digest: item.revocation for digest, item in read_withheld(folder).items()}
    if not waiting:
        return trusted
    return replace(trusted, revoked_digests={**waiting, **trusted.revoked_digests})


def _write(folder: Path, digests: Mapping[Digest, Withheld]) -> None:
    document = {
        "schema": SCHEMA,
        "digests": {
            str(digest): {
                "since": write_time(item.revocation.since),
                "reason": item.revocation.reason,
                "sender": item.sender,
            }
            for digest, item in digests.items()
        },
    }
    replace_file(folder / NAME, strictjson.dumps(document))
