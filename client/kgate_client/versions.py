"""Remembers which commit a version meant, so that the same pod finds it again without a network.

The stock client downloads by commit and writes no `refs/vN`; offline, `version=N` then finds
nothing although every byte is there. Once a kernel was verified, this writes that ref into the
Hub cache, in the client's own layout. A cache that cannot be written is left alone: the load
itself needs none of this.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from kgate_client.asked import Asked
    from kgate_client.place import Place

NOTHING: Final = "0a4e10129ac575afcde821691a382960f6f905b3"
"""The commit at which mirrors show everything that is not there (docs/adr/0002)."""

_meant: dict[tuple[str, str], set[int]] = {}  # (repository, commit) to version numbers


def note(repo: str, version: int, commit: str) -> None:
    """Note what a version resolved to in this process."""
    _meant.setdefault((repo, commit), set()).add(version)


def pins_of(asked: Asked) -> tuple[str, ...]:
    """Return under which pins a request could have been made: its own, then `vN` it stands for.

    A layer resolves its version first and then asks for a commit.
    """
    if asked.pin is None:
        return ()
    numbers = sorted(_meant.get((asked.repo or "", asked.pin), ()), reverse=True)
    return (asked.pin, *(f"v{number}" for number in numbers))


def keep(place: Place) -> None:
    """Write the refs of a verified kernel; does nothing for other places than a Hub cache."""
    if place.repo_folder is None or place.repo is None or place.revision is None:
        return
    commit = str(place.revision)
    for version in _meant.get((str(place.repo), commit), ()):
        path = place.repo_folder / "refs" / f"v{version}"
        with suppress(OSError):
            if path.is_file() and path.read_text(encoding="ascii") == commit:
                continue
            path.parent.mkdir(exist_ok=True)
            # Renamed into place: another process may be reading it.
            temporary = path.with_name(f".{path.name}.{os.getpid()}")
            temporary.write_text(commit, encoding="ascii")
            temporary.replace(path)
