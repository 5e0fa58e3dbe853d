"""A refused variant as the catalog records it. Nothing is refused here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kgate_mirror_server.ports import Denial

if TYPE_CHECKING:
    from datetime import datetime

    from kgate_core.lock import LockedKernel
    from kgate_mirror_server.admit import VariantResult
    from kgate_mirror_server.settings.site import Pin


def denial_of(pin: Pin, locked: LockedKernel, result: VariantResult, now: datetime) -> Denial:
    """Return a refused variant as the catalog records it."""
    return Denial(
        locked.origin,
        locked.repo_type,
        locked.repo,
        locked.commit,
        pin.version,
        locked.lane,
        result.variant,
        result.manifest,
        tuple(reason.to_json() for reason in result.reasons),
        now,
        result.evidence,
    )
