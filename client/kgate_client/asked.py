"""What a caller asked for, as it said it.

Known before anything of kgate's core is imported, so that even a broken install can say which
kernel it refuses.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_VERSION: Final = re.compile(r"v\d+")


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as the caller of `kernels` made it; both None if it was made past every seam."""

    repo: str | None = None
    """Repository as written, or the path in a request for a local directory."""
    pin: str | None = None
    """`v3` for a version; else the commit, branch or tag."""

    @property
    def version(self) -> int | None:
        """The version number, if one was asked for."""
        if self.pin is None or _VERSION.fullmatch(self.pin) is None:
            return None
        return int(self.pin[1:])

    def __str__(self) -> str:
        name = self.repo or "a kernel"
        return f"{name}@{self.pin}" if self.pin else name
