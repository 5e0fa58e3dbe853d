"""What an advisory or a VEX statement comes down to, whatever format it was written in."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from kgate_core.evidence import Severity
    from kgate_core.vulnerabilities import Status
    from kgate_scanner.advisories.versions import Range


class Kind(StrEnum):
    """What of a kernel an advisory can be about."""

    REPO = "repository"
    """A kernel repository at certain commits."""
    FILE = "file"
    """A file of the variant, or the variant's manifest, by digest."""
    IMAGE = "device image"
    """A device image by the digest of its decompressed bytes."""
    BUILD_ID = "build id"
    TOOLKIT = "toolkit"
    """The CUDA or ROCm release that compiled device code."""
    PACKAGE = "package"
    """A library that the variant ships, by its PyPI project."""


@dataclass(frozen=True, slots=True)
class Target:
    """One thing that an advisory is about."""

    kind: Kind
    name: str = ""
    """`org/name`, `cuda`, `rocm` or a PyPI project; empty for digests and build ids."""
    values: frozenset[str] = frozenset()
    """Digests, build ids, commits, or versions written out."""
    ranges: tuple[Range, ...] = ()
    unparsed: tuple[str, ...] = ()
    """Versions that could not be read: they make the answer unknown."""
    clean: frozenset[str] = frozenset()
    """Commits that are said to be right."""
    every: bool = False
    """True if all versions are meant."""


@dataclass(frozen=True, slots=True)
class Advisory:
    """One vulnerability with what it is about."""

    id: str
    modified: datetime
    severity: Severity
    targets: tuple[Target, ...]
    aliases: tuple[str, ...] = ()
    text: str = ""
    """Title and description, for the rules about tools; never shown in full."""
    withdrawn: bool = False

    @property
    def names(self) -> frozenset[str]:
        """Every id by which it is known."""
        return frozenset((self.id, *self.aliases))


@dataclass(frozen=True, slots=True)
class VexStatement:
    """What somebody says about one vulnerability in certain products."""

    ids: frozenset[str]
    products: tuple[tuple[str, ...], ...]
    """Each is one product, or a product and a part of it: package URLs, or digests `sha256:…`."""
    status: Status
    author: str
    stated: datetime
    justification: str = ""
    statement: str = ""


@dataclass(frozen=True, slots=True)
class Content:
    """What one document of a feed holds."""

    advisories: tuple[Advisory, ...] = ()
    statements: tuple[VexStatement, ...] = ()
    skipped: str = ""
    """Why nothing was taken from it; empty if something was."""
    dates: tuple[datetime, ...] = field(default=())
    """When it was last changed, for advisories only: VEX may be old and right."""
