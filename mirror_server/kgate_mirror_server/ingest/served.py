"""Which revision clients see: upstream's commit, or one that the mirror mints for a wider set.

Clients cache the file list of a commit for ever. So the variants under a served revision never
grow: when more of a commit is allowed later, the wider set gets a revision of its own, the same one
on every mirror. Nothing is published here.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from kgate_core.kernel import Revision

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kgate_core.digest import Digest
    from kgate_core.lock import LockedKernel
    from kgate_mirror_server.ports import Publication


def served_revision(
    publications: Sequence[Publication], locked: LockedKernel, wanted: Mapping[str, Digest]
) -> Revision:
    """Return the revision for these variants of a commit; the commit itself if it is free."""
    taken = False
    for publication in publications:
        place = (publication.repo_type, publication.repo, publication.lane)
        if place != (locked.repo_type, locked.repo, locked.lane):
            continue
        held = {item.variant: item.manifest for item in publication.variants}
        if publication.upstream == locked.commit and held == wanted:
            return publication.served
        taken = taken or publication.served == locked.commit
    return mint(locked.commit, wanted) if taken else locked.commit


def mint(upstream: Revision, variants: Mapping[str, Digest]) -> Revision:
    """Return the revision of an upstream commit with exactly these variants."""
    state = hashlib.sha256(f"kgate.dev/revision/v1\n{upstream}\n".encode())
    for name, digest in sorted(variants.items()):
        state.update(f"{name} {digest}\n".encode())
    return Revision(state.hexdigest()[:40])
