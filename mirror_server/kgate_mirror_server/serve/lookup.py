"""Names in URLs, looked up in what one caller may see of one lane; and the uniform emptiness.

Everything a caller may not have looks the same (docs/adr/0002): a well-formed
kernel repository with versions 1 to 16, each at one fixed commit without files. Stock clients then
run the PyTorch path. A commit that is not published has no tree of its own, because clients keep
a commit's tree for ever and it may be published later.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

from kgate_core.errors import InvalidInput
from kgate_core.kernel import KernelRef, RepoType

if TYPE_CHECKING:
    from kgate_mirror_server.serve.access import Caller
    from kgate_mirror_server.serve.settings import DenyStyle
    from kgate_mirror_server.serve.view import LaneView, RepoView, RevisionView

EMPTY_COMMIT: Final = hashlib.sha1(b"kgate: nothing", usedforsecurity=False).hexdigest()
"""The revision of everything that is not there; no git commit has this id by construction."""
MAIN: Final = "main"
EMPTY_VERSIONS: Final = range(1, 17)
_VERSION: Final = re.compile(r"v(0|[1-9][0-9]{0,5})")


class Empty(Enum):
    """What a revision can be besides published."""

    COMMIT = "commit"
    """The fixed commit that holds nothing."""


@dataclass(frozen=True, slots=True)
class Visible:
    """What one caller may see of one lane."""

    name: str
    view: LaneView
    caller: Caller
    style: DenyStyle

    def repo(self, ref: KernelRef, repo_type: RepoType) -> RepoView | None:
        """Return a repository that is published here, may be seen and is of this type."""
        if not self.caller.sees(self.name, str(ref)):
            return None
        return self.view.repos.get((repo_type, str(ref)))

    def publishes_for(self, org: str) -> bool:
        """Return whether the caller may see any repository of this organisation."""
        return any(
            name.partition("/")[0] == org and self.caller.sees(self.name, name)
            for _, name in self.view.repos
        )


def parse_ref(org: str, name: str) -> KernelRef | None:
    """Return a repository name from two path segments, or None if it cannot be one."""
    try:
        return KernelRef(org, name)
    except InvalidInput:
        return None


def find_revision(
    repo: RepoView | None, revision: str, *, default_branch: bool = False
) -> RevisionView | Empty | None:
    """Return what a revision of a repository means; None if it means nothing.

    `default_branch` lets `main` mean the newest version, as clients before versions ask for it;
    without, it is the branch of a kernel repository that holds no builds. `kernels` 0.14 to 0.16
    look there for a redirect and take a missing branch for an error.
    """
    revision = revision.removeprefix("refs/heads/")
    if revision == EMPTY_COMMIT:
        return Empty.COMMIT
    if found := _VERSION.fullmatch(revision):
        number = int(found[1])
        if repo is not None and number in repo.branches:
            return repo.revisions[str(repo.branches[number])]
        return Empty.COMMIT if number in EMPTY_VERSIONS else None
    if revision == MAIN and not default_branch:
        return Empty.COMMIT
    if repo is None:
        return None
    if revision == MAIN:
        return repo.newest
    return repo.revisions.get(revision)


def branch_table(repo: RepoView | None) -> dict[int, str]:
    """Return version number to commit for the refs of a repository, published or not.

    Versions that are not published are listed even beside published ones: clients raise an error
    for a version that is not listed, and fall back for one that is empty.
    """
    table = dict.fromkeys(EMPTY_VERSIONS, EMPTY_COMMIT)
    if repo is not None:
        table |= {number: str(served) for number, served in repo.branches.items()}
    return dict(sorted(table.items()))
