"""Compares what a caller asked for with what the place where the files lie says about itself.

A path never proves which kernel was wanted: `LOCAL_KERNELS` can point any name at any directory.
So the request is noted where `kernels` resolves it, and what both say together must stand in the
signed statement. Nothing here looks into files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kgate_core.errors import InvalidInput
from kgate_core.kernel import KernelRef, Revision
from kgate_core.verify import Expected

if TYPE_CHECKING:
    from kgate_client.asked import Asked

_REPO_FOLDER: Final = re.compile(r"(?:kernels|models)--(.+?)--(.+)")
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_LAYOUT: Final = 5  # kernels--org--name / snapshots / <commit> / build / <variant>


class Mismatch(Exception):  # noqa: N818  # control flow between this module and the gate
    """What was asked for and where the files lie contradict each other."""


@dataclass(frozen=True, slots=True)
class Place:
    """A variant directory, read as the Hub cache's layout; fields are None elsewhere."""

    path: Path
    repo_folder: Path | None
    """The directory `kernels--org--name`: symbolic links may point into it."""
    repo: KernelRef | None
    revision: Revision | None

    @property
    def variant(self) -> str:
        """Name of the variant directory."""
        return self.path.name

    @classmethod
    def of(cls, path: Path) -> Place:
        """Read a variant path; a place outside the layout simply says less."""
        parts = path.parts[-_LAYOUT:]
        if len(parts) == _LAYOUT and (parts[1], parts[3]) == ("snapshots", "build"):
            folder = _REPO_FOLDER.fullmatch(parts[0])
            if folder is not None and _COMMIT.fullmatch(parts[2]):
                try:
                    repo = KernelRef(folder[1], folder[2])
                except InvalidInput:
                    return cls(path, None, None, None)
                return cls(path, path.parents[_LAYOUT - 2], repo, Revision(parts[2]))
        return cls(path, None, None, None)


def expect(asked: Asked, place: Place, lane: str) -> Expected:
    """Combine request and place into what a statement must say; raises Mismatch."""
    repo = _repo(asked, place)
    revision = _revision(asked, place)
    return Expected(variant=place.variant, lane=lane, repo=repo, revision=revision)


def _repo(asked: Asked, place: Place) -> KernelRef | None:
    if asked.repo is None:
        return place.repo
    try:
        wanted = KernelRef.parse(asked.repo)
    except InvalidInput:
        wanted = None
    if wanted is None or Path(asked.repo).is_absolute():
        # A request for a directory: it must be the one the files lie in, and nothing else.
        directory = Path(asked.repo)
        if directory != place.path and directory not in place.path.parents:
            raise Mismatch(f"asked for {asked.repo}, the files lie in {place.path}")
        return place.repo
    if place.repo is not None and place.repo != wanted:
        raise Mismatch(f"asked for {wanted}, the files are those of {place.repo}")
    return wanted


def _revision(asked: Asked, place: Place) -> Revision | None:
    if asked.pin is None or _COMMIT.fullmatch(asked.pin) is None:
        return place.revision
    wanted = Revision(asked.pin)
    if place.revision is not None and place.revision != wanted:
        raise Mismatch(f"asked for revision {wanted}, the files are those of {place.revision}")
    return wanted
