"""What an upstream that is a kgate itself said about a kernel, beside the publisher's signature.

With a pinned root its word is asked for; without, none is. A word that is false or missing becomes
the verdict that policies see; what was revoked there is not left standing here in silence. Nothing
of it is decided here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from kgate_core.errors import TrustError
from kgate_core.kernel import KernelId
from kgate_mirror_server.ports import EvidenceKind
from kgate_mirror_server.upstream.word import Word
from kgate_signer.predicates import UpstreamVerdict

if TYPE_CHECKING:
    from datetime import datetime

    from kgate_core.lock import LockedKernel
    from kgate_core.manifest import Manifest
    from kgate_mirror_server.app import Mirror
    from kgate_mirror_server.ingest.resolve import Source
    from kgate_mirror_server.ports import HubClient
    from kgate_mirror_server.settings.site import Pin
    from kgate_mirror_server.upstream.voucher import Voucher


@runtime_checkable
class Vouching(Protocol):
    """An upstream that may vouch for what it gives."""

    voucher: Voucher | None


def said_upstream(
    mirror: Mirror,
    upstream: HubClient,
    pin: Pin,
    kernel: KernelId,
    manifest: Manifest,
    now: datetime,
) -> Word:
    """Return the verdict on what publisher and upstream signed; raises UpstreamError.

    A broken signature of the publisher counts before anything that the upstream says.
    """
    own = mirror.check_publisher(pin, manifest)
    voucher = _voucher(upstream)
    if voucher is None:
        return Word(own)
    word = voucher.about(kernel.repo, kernel.revision, kernel.variant, manifest, now)
    if own.verdict is UpstreamVerdict.REJECTED:
        return replace(word, verdict=replace(own, bundles=word.verdict.bundles))
    detail = f"{word.verdict.detail}; the publisher's own signature: {own.verdict}"
    return replace(word, verdict=replace(word.verdict, detail=detail, bundle=own.bundle))


def asks_again(mirror: Mirror, source: Source, locked: LockedKernel, now: datetime) -> bool:
    """Return whether the upstream's word about what came in before was none, or a false one.

    Raises TrustError if the upstream has revoked it since, or its trust metadata is no good.
    """
    voucher = _voucher(source.upstream)
    if voucher is None:
        return False
    again = False
    revoked = bool(voucher.trusted(now).revoked_digests)
    for name in locked.variants:
        kernel = KernelId(locked.origin, locked.repo_type, locked.repo, locked.commit, name)
        found = mirror.room.found(kernel, locked.lane)
        if found is None or EvidenceKind.SCAN not in found:
            continue
        again |= mirror.room.imported(found).signature.get("status") != UpstreamVerdict.VERIFIED
        if revoked and (reason := voucher.revoked(mirror.room.manifest(found), now)):
            digest = found[EvidenceKind.MANIFEST]
            raise TrustError(
                f"{locked.repo}@{locked.commit.short} {name}: {reason}",
                hint=f"it is served here still: `kgate revoke {digest}`",
            )
    return again


def _voucher(upstream: HubClient) -> Voucher | None:
    return upstream.voucher if isinstance(upstream, Vouching) else None
