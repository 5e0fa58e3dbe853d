"""Keep the glass broken until its end, though the rest of a publication is decided anew.

A sync that publishes the other variants of a kernel again would leave out the one that people let
in. It is put back where the evidence still says what they signed. Where it does not, nobody let in
what there is now: that is told, not hidden.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kgate_core.errors import Conflict, NotFound
from kgate_mirror_server.trust.breakglass import case_of, lasting, let_in

if TYPE_CHECKING:
    from datetime import datetime

    from kgate_mirror_server.app import Mirror
    from kgate_mirror_server.trust.breakglass import Request


def keep_open(mirror: Mirror, now: datetime) -> list[Request]:
    """Put back what was let in and is not served any more; returns what could not be put back."""
    closed = []
    for request in lasting(mirror, now):
        if _is_served(mirror, request):
            continue
        try:
            let_in(mirror, case_of(mirror, request, now), request, now)
        except (Conflict, NotFound):
            closed.append(request)
    return closed


def _is_served(mirror: Mirror, request: Request) -> bool:
    """Return whether clients still get the variant, by a version branch or by a pinned commit."""
    glass = request.glass
    holding = [
        item
        for item in mirror.catalog.publications_of(glass.kernel.repo, glass.lane)
        if item.repo_type is glass.kernel.repo_type
        and any(one.manifest == glass.manifest for one in item.variants)
    ]
    if any(item.version is not None for item in holding):
        return True
    denied = [one for one in mirror.catalog.denials() if one.manifest == glass.manifest]
    return bool(holding) and all(one.version is None for one in denied if one.lane == glass.lane)
