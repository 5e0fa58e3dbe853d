"""Changes of trust that wait for more holders of the root, as files beside the trust documents.

A change that the keys here cannot sign alone is written to `trust/pending/`; the holders sign the
file one after the other, and `publish` lets it count. Two changes may wait at once: they start from
the same documents, so only one of them can be published, and the other is asked for anew.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from kgate_core.digest import Digest
from kgate_core.errors import Conflict, KgateError, TrustError
from kgate_mirror_server.trust.files import (
    changing,
    read_pinned,
    read_trust,
    replace_file,
    write_trust,
)
from kgate_mirror_server.trust.withheld import release
from kgate_signer.cosigning import MAX_BYTES, Pending
from kgate_signer.trustdifference import differences
from kgate_signer.trustwriter import refresh_timestamp

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from kgate_mirror_server.app import Mirror

FOLDER: Final = "pending"
_SHORT: Final = 8  # hex digits in a file's name


class WaitsForSignatures(TrustError):  # noqa: N818  # said aloud, as the others of the family
    """A change of trust is prepared, and nothing has changed yet: more people must sign it."""

    code = "waits-for-signatures"

    def __init__(self, path: Path, pending: Pending) -> None:
        self.path = path
        lacks = max(pending.missing(), key=lambda item: item.threshold - item.signed)
        super().__init__(
            f"nothing has changed yet: {lacks.document} has {lacks.signed} of the"
            f" {lacks.threshold} signatures that it needs",
            hint=f"take {path} to another holder of the root (`kgate trust sign FILE --key URI"
            " --root root.json`); back here: `kgate trust publish FILE`",
        )


def wait_if_incomplete(folder: Path, pending: Pending) -> None:
    """Keep a change that lacks signatures and raise WaitsForSignatures; do nothing for a whole one.

    Raises TrustError if not one holder of the root has signed it: then it is not kept.
    """
    missing = pending.missing()
    if not missing:
        return
    if unsigned := [item for item in missing if not item.signed]:
        raise TrustError(
            f"{unsigned[0].document} lacks signatures: the key here speaks for none of its holders",
            hint="bring enough private keys of the role 'root'",
        )
    data = pending.to_json()
    version = len(pending.drafted.roots)
    path = folder / FOLDER / f"root-{version}-{Digest.of(data).hex[:_SHORT]}.json"
    try:
        path.parent.mkdir(exist_ok=True)
    except OSError as exc:
        raise KgateError(f"{path.parent}: cannot be made ({exc.strerror})") from exc
    replace_file(path, data)
    raise WaitsForSignatures(path, pending)


def read_pending(path: Path) -> Pending:
    """Read a change that waits; raises KgateError, InvalidInput. Nothing of it is verified."""
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as exc:
        raise KgateError(f"{path}: cannot be read ({exc.strerror})") from exc
    return Pending.from_json(data)


def publish(mirror: Mirror, path: Path, now: datetime) -> list[str]:
    """Let a change count that enough people signed; returns what it changes, in sentences.

    Raises WaitsForSignatures if more have to, Conflict if the documents here have moved on.
    """
    pending = read_pending(path)
    folder = mirror.config.path(mirror.config.trust)
    pinned = read_pinned(folder)
    pending.check(pinned)
    if pending.missing():
        raise WaitsForSignatures(path, pending)
    rotated = _rotated_files(mirror, pending)
    address = mirror.config.keys.timestamp
    online = mirror.key(rotated[address].uri if address in rotated else address)
    with changing(folder):
        here = read_trust(folder)
        if replace(here, timestamp=b"") != replace(pending.base, timestamp=b""):
            raise Conflict(
                "the trust documents have changed since this was prepared",
                hint="ask for the change anew, and let it be signed again",
            )
        trust = replace(pending.drafted, timestamp=here.timestamp)
        trust = refresh_timestamp(trust, online, now=now)
        write_trust(folder, trust)
    for item in rotated.values():
        item.settle()
    mirror.__dict__.pop("attestor", None)  # it may have been opened with an old key
    release(folder, trust.load(now).revoked_digests)
    path.unlink(missing_ok=True)
    return differences(pending.base, pending.drafted)


@dataclass(frozen=True, slots=True)
class _Rotated:
    """A private key that a waiting rotation wrote beside the one whose place it takes."""

    path: Path
    """The name that kgate.yaml knows."""
    fresh: Path
    retired: Path
    uri: str
    """Opens the new key where it lies before the change counts."""

    def settle(self) -> None:
        """Give the new key the known name, as `kgate keys rotate` does."""
        try:
            os.link(self.path, self.retired)
            self.fresh.replace(self.path)  # at every moment the name holds one of the two
        except OSError as exc:
            raise KgateError(
                f"{self.path}: cannot be replaced ({exc.strerror})",
                hint=f"the change counts; the new key is {self.fresh}",
            ) from exc


def _rotated_files(mirror: Mirror, pending: Pending) -> dict[str, _Rotated]:
    """Return the keys in files here that the change replaces, by their addresses in kgate.yaml."""
    found = {}
    for uri in filter(None, mirror.config.keys.model_dump().values()):
        scheme, _, rest = uri.partition(":")
        name, mark, query = rest.removeprefix("//").partition("?")
        path = mirror.config.path(name)
        for new, old in pending.replaced().items() if scheme == "file" else ():
            fresh, retired = (
                path.with_name(f"{path.stem}.{keyid[:_SHORT]}{path.suffix}") for keyid in (new, old)
            )
            if fresh.exists():
                found[uri] = _Rotated(path, fresh, retired, f"file:{fresh}{mark}{query}")
    return found
