"""Revocations that cross the gap, and their taking back: what the sender's trust metadata says.

They count on this mirror before anything else of a bundle is looked at, whether or not the root
key is at hand. Pods obey what this site's own root signed: with the key here that is done at once,
else `kgate trust update` does it later. What this site revoked by itself is never taken back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kgate_core.errors import TrustError
from kgate_core.trust import Revocation
from kgate_mirror_server.ingest.sync import refresh_trust
from kgate_mirror_server.trust.revocation import reinstate, revoke
from kgate_mirror_server.trust.withheld import Withheld, read_withheld, release, withhold

if TYPE_CHECKING:
    from datetime import datetime

    from kgate_core.digest import Digest
    from kgate_mirror_server.app import Mirror
    from kgate_mirror_server.bundle.senders import Opened


@dataclass(frozen=True, slots=True)
class Revocations:
    """What a bundle changed about which bytes are believed."""

    revoked: tuple[Digest, ...] = ()
    """New here; they count on this mirror from now on."""
    reinstated: tuple[Digest, ...] = ()
    """The sender takes them back, and so does this site."""
    unsigned: tuple[Digest, ...] = ()
    """Withdrawn here, but pods are told only when the root key signs."""
    still_revoked: tuple[Digest, ...] = ()
    """The sender takes them back; the signed revocation here needs the root key to go."""


def take_revocations(mirror: Mirror, opened: Opened, now: datetime) -> Revocations:
    """Follow the sender's revocations; raises TrustError if this site's own trust is unusable."""
    refresh_trust(mirror, now)
    folder = mirror.config.path(mirror.config.trust)
    site = opened.document.site
    theirs = opened.trusted.revoked_digests
    signed = mirror.signed_trust(now).revoked_digests
    waiting = read_withheld(folder)
    new = {
        digest: Withheld(Revocation(now, _reason(said.reason, site)), site)
        for digest, said in sorted(theirs.items())
        if digest not in signed and digest not in waiting
    }
    withhold(folder, new)
    unsigned = sign_withheld(mirror, now)
    # Back comes only what this sender revoked, never what this site found by itself.
    back = [digest for digest, item in waiting.items() if item.sender == site]
    back += [digest for digest, said in signed.items() if said.reason.endswith(_mark(site))]
    gone = sorted(digest for digest in back if digest not in theirs)
    still = _reinstate(mirror, gone, now)
    release(folder, gone)
    return Revocations(
        tuple(new),
        tuple(digest for digest in gone if digest not in still),
        tuple(digest for digest in unsigned if digest not in gone),
        tuple(still),
    )


def sign_withheld(mirror: Mirror, now: datetime) -> list[Digest]:
    """Sign what waits into the trust metadata; returns what still waits because no key is here."""
    folder = mirror.config.path(mirror.config.trust)
    signed = mirror.signed_trust(now).revoked_digests
    for digest, item in sorted(read_withheld(folder).items()):
        try:
            if digest not in signed:
                revoke(mirror, str(digest), item.revocation.reason, now)
        except TrustError:
            break
        release(folder, [digest])
    return sorted(read_withheld(folder))


def _reinstate(mirror: Mirror, digests: list[Digest], now: datetime) -> list[Digest]:
    """Take signed revocations back; returns those for which the root key is missing."""
    signed = mirror.signed_trust(now).revoked_digests
    left = [digest for digest in digests if digest in signed]
    while left:
        try:
            reinstate(mirror, str(left[0]), now)
        except TrustError:
            break
        left.pop(0)
    return left


def _reason(reason: str, site: str) -> str:
    return f"{reason} {_mark(site)}"


def _mark(site: str) -> str:
    return f"(revoked by {site})"
