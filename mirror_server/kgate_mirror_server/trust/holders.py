"""Who holds the root, and how many of them must agree: people are added and replaced.

The holders of the root sign targets and snapshot as well. Each keeps a private key of their own on
a machine of their own; this site needs their public halves only.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from kgate_core.errors import Conflict, InvalidInput, NotFound
from kgate_mirror_server.trust.rolekeys import MIN_PREFIX, keys_of, root_of
from kgate_mirror_server.trust.update import sign_change
from kgate_signer.keys import FileKey, write_private_file
from kgate_signer.trustchanges import rotate_root

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from kgate_core.keys import Algorithm, PublicKey
    from kgate_core.tuf import Root
    from kgate_mirror_server.app import Mirror


def make_key(path: Path, passphrase: bytes | None, algorithm: Algorithm) -> PublicKey:
    """Write a holder's private key and, beside it, its public half; registers it nowhere."""
    key = FileKey.generate(algorithm)
    write_private_file(path, key.to_pem(passphrase))
    path.with_suffix(".pub.pem").write_text(key.public_key().pem, encoding="ascii")
    return key.public_key()


def change_holders(
    mirror: Mirror,
    public: PublicKey,
    now: datetime,
    *,
    replaces: str = "",
    threshold: int | None = None,
) -> None:
    """Let one more key, or one in the place of another, hold the root.

    `replaces` begins the id of the holder that goes. Raises NotFound if it names none, Conflict
    for a key that the root knows, WaitsForSignatures while holders have not signed.
    """
    root = root_of(mirror)
    if public.keyid in root.keys:
        raise Conflict("this key is one of the root or timestamp role already")
    leaving = _holder(root, replaces) if replaces else None
    keys = keys_of(root, {leaving: public} if leaving else {})
    if leaving is None:
        keys = replace(keys, root=(*keys.root, public), targets=(*keys.targets, public))
    if threshold is not None:
        if threshold > len(keys.root):
            raise InvalidInput(
                f"{threshold} of {len(keys.root)} holders can never agree",
                hint="add the other holders first: `kgate keys add root PUBLIC.pem`",
            )
        keys = replace(keys, root_threshold=threshold, targets_threshold=threshold)
    sign_change(mirror, lambda trust, by: rotate_root(trust, keys, by, now=now), now)


def _holder(root: Root, prefix: str) -> str:
    found = [keyid for keyid in root.roles["root"].keyids if keyid.startswith(prefix)]
    if len(prefix) < MIN_PREFIX or len(found) != 1:
        raise NotFound(
            f"{prefix!r} names no single holder of the root",
            hint=f"`kgate keys list` prints ids; {MIN_PREFIX} digits or more",
        )
    return found[0]
