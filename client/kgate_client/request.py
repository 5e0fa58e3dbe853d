"""One arrival at the load point of `kernels`, and what the library lends to the gate for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path
    from types import ModuleType

    from kgate_client.asked import Asked


class Library(Protocol):
    """What a supported version of `kernels` lends to the gate."""

    def find(self, path: Path) -> ModuleType | None:
        """Return the module that was registered for this variant path."""

    def register(self, path: Path, module: ModuleType, sealed: Path) -> None:
        """Enter a loaded module into the library's own list."""

    def context(self) -> AbstractContextManager[object]:
        """Return the context in which the kernel's code runs."""

    def load_ungated(self) -> ModuleType:
        """Load as the library would have done without kgate."""


@dataclass(frozen=True, slots=True)
class Request:
    """One arrival at the load point."""

    asked: Asked
    path: Path
    depends: tuple[ModuleType, ...]
    library: Library
