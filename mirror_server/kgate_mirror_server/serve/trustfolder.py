"""The folder of trust metadata that the mirror serves and itself believes.

Files: `N.root.json` for every root version, `timestamp.json`, `snapshot.json`, `targets.json`;
`withheld.json` is obeyed but never served. Others write them; a change is seen at the next look.
The lowest root is the pinned one here: the folder is the mirror's own, whereas pods bring their
root along.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from kgate_core.errors import TrustError
from kgate_core.trust import TrustDocuments, load
from kgate_core.tuf import MAX_METADATA
from kgate_mirror_server.trust.withheld import NAME, with_withheld

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from kgate_core.trust import TrustedRoot

_ROOT: Final = re.compile(r"([1-9][0-9]{0,8})\.root\.json")
_ONLINE: Final = ("timestamp.json", "snapshot.json", "targets.json")

Stamp = tuple[tuple[str, int, int], ...]


class TrustFolder:
    """Reads trust metadata from a folder; keeps nothing between calls."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def document(self, name: str) -> bytes | None:
        """Return one document's bytes, or None if there is none of that name."""
        if name not in _ONLINE and _ROOT.fullmatch(name) is None:
            return None
        try:
            data = (self._folder / name).read_bytes()
        except OSError:
            return None
        return data if len(data) <= MAX_METADATA else None

    def stamp(self) -> Stamp:
        """Return names, sizes and times of the documents: equal stamps mean nothing changed."""
        found = []
        try:
            for path in sorted(self._folder.iterdir()):
                if path.name in {*_ONLINE, NAME} or _ROOT.fullmatch(path.name):
                    seen = path.stat()
                    found.append((path.name, seen.st_size, seen.st_mtime_ns))
        except OSError:
            return ()
        return tuple(found)

    def load(self, now: datetime) -> TrustedRoot:
        """Verify all documents; raises TrustError or InvalidInput."""
        try:
            names = [path.name for path in self._folder.iterdir()]
        except OSError as exc:
            raise TrustError(
                f"the trust folder {self._folder} cannot be read: {exc.strerror}",
                hint="`kgate init` writes it",
            ) from exc
        numbers = sorted(int(found[1]) for name in names if (found := _ROOT.fullmatch(name)))
        if not numbers:
            raise TrustError(
                f"there is no trust root in {self._folder}", hint="`kgate init` writes it"
            )
        roots = [self._needed(f"{number}.root.json") for number in numbers]
        documents = TrustDocuments(roots[1:], *(self._needed(name) for name in _ONLINE))
        return with_withheld(load(roots[0], documents, now=now), self._folder)

    def _needed(self, name: str) -> bytes:
        data = self.document(name)
        if data is None:
            raise TrustError(f"{name} is missing in {self._folder} or too large")
        return data
