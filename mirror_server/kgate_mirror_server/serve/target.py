"""The repository that a URL names: what it is for this caller, and the answers if it is nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kgate_core.kernel import KernelRef, RepoType
from kgate_mirror_server.serve.lookup import MAIN, Empty, find_revision, parse_ref
from kgate_mirror_server.serve.settings import DenyStyle
from kgate_mirror_server.serve.wire import error

if TYPE_CHECKING:
    from kgate_mirror_server.serve.lookup import Visible
    from kgate_mirror_server.serve.view import RepoView, RevisionView
    from kgate_mirror_server.serve.wire import Answer, Header

_KINDS: Final = {"kernels": RepoType.KERNEL, "models": RepoType.MODEL}


@dataclass(frozen=True, slots=True)
class Target:
    """The repository that a URL names, under the type that the URL names."""

    ref: KernelRef
    asked_as: RepoType
    found: RepoView | None
    """None if it is not published or the caller may not see it."""
    uniform: bool
    """True if what is not there answers like a kernel without builds."""

    def revision(self, text: str) -> RevisionView | Empty | None:
        """Return what a revision means here."""
        if self.found is None and not self.uniform:
            return None
        found = find_revision(self.found, text, default_branch=self.asked_as is RepoType.MODEL)
        fallback = isinstance(found, Empty) and text != MAIN
        return None if fallback and not self.uniform else found


def find_target(kind: str, org: str, name: str, visible: Visible) -> Target | None:
    """Return the repository that two path segments name; None if the caller gets a 404 for it."""
    ref = parse_ref(org, name)
    if ref is None:
        return None
    asked_as = _KINDS[kind]
    found = visible.repo(ref, RepoType.KERNEL)
    if asked_as is RepoType.MODEL:
        found = visible.repo(ref, RepoType.MODEL) or found
    # Model clients have no PyTorch path to take: for them, what is not there is not found.
    uniform = asked_as is RepoType.KERNEL and visible.style is DenyStyle.FALLBACK
    return Target(ref, asked_as, found, uniform) if found is not None or uniform else None


def no_repo(name: str) -> Answer:
    """Return the answer for a repository that is not there."""
    return error(404, f"there is no repository {name[:200]}", code="RepoNotFound")


def no_revision(target: Target, revision: str) -> Answer:
    """Return the answer for a revision that is not there."""
    return error(
        404,
        f"{target.ref} has no published revision {revision[:200]!r}",
        code="RevisionNotFound",
    )


def no_entry(found: RevisionView, path: str) -> Answer:
    """Return the answer for a file that a published revision does not have."""
    return error(
        404, f"there is no file {path[:200]!r}", commit_header(found), code="EntryNotFound"
    )


def commit_header(found: RevisionView) -> Header:
    """Return the header by which clients learn the commit of an answer."""
    return (b"x-repo-commit", str(found.served).encode("ascii"))
