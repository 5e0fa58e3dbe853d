"""Refuses what would not fit before it is fetched.

Counted are the files of publications, each blob once: evidence is small beside them, and what a
crash left behind goes with `kgate gc`. Two runs at once may pass together what each would fit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kgate_core.errors import Conflict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from kgate_core.digest import Digest
    from kgate_core.kernel import KernelRef
    from kgate_mirror_server.ports import Publication, ServedFile
    from kgate_mirror_server.settings.keeping import Quotas


def check_quotas(
    quotas: Quotas,
    publications: Callable[[], Iterable[Publication]],
    repo: KernelRef,
    coming: Iterable[ServedFile],
) -> None:
    """Raise Conflict if these files would break a quota; they count only where they are new.

    `publications` is asked only if there is a quota: reading them all for each pin is not free.
    """
    if quotas.site is None and quotas.repo is None:
        return
    site: dict[Digest, int] = {}
    own: dict[Digest, int] = {}
    for publication in publications():
        found = {file.digest: file.size for v in publication.variants for file in v.files}
        site |= found
        if publication.repo == repo:
            own |= found
    new = {file.digest: file.size for file in coming}
    for what, limit, used in (
        (f"quotas.repo of {repo}", quotas.repo, own),
        ("quotas.site", quotas.site, site),
    ):
        if limit is None:
            continue
        taken = sum(used.values())
        more = sum(size for digest, size in new.items() if digest not in used)
        if more and taken + more > limit:
            raise Conflict(
                f"{repo} needs {more:,} bytes more; {what} is {limit:,}, of which {taken:,} are"
                " taken: nothing was fetched",
                hint="pin fewer variants, raise the quota in kgate.yaml, or let `kgate gc` take"
                " older revisions away (retention.keep_newest)",
            )
