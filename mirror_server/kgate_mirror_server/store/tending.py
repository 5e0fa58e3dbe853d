"""What those ask of a store who look after it: gc, scrub, backup, rebuild. No bytes are moved here.

Both kinds of store answer alike; serving asks for less (`ports.BlobStore`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from kgate_core.errors import InvalidInput
from kgate_mirror_server.ports import BlobStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from datetime import datetime, timedelta

    from kgate_core.digest import Digest


@dataclass(frozen=True, slots=True)
class Seen:
    """What a store says about a blob without reading it."""

    size: int
    changed: datetime
    version: str
    """Differs when the bytes were written again: an entity tag, or a file's inode and times."""


class Occupied(Protocol):
    """A place in a store that this process keeps until it is closed."""

    def alone(self, wait: float = ...) -> AbstractContextManager[None]:
        """Be the only one that uses it meanwhile; raises Conflict after `wait` seconds."""
        ...

    def sweep(self, *, now: datetime, older_than: timedelta) -> int:
        """Delete what broken uploads left and nobody wrote to for so long; returns how many."""
        ...

    def close(self) -> None:
        """Let others remove from it."""
        ...


class Readable(BlobStore, Protocol):
    """A store that can be gone through."""

    def digests(self) -> Iterator[Digest]:
        """Yield every stored digest."""
        ...

    def seen(self, digest: Digest) -> Seen:
        """Return what is known of a blob without reading it; raises NotFound."""
        ...

    def chunks(self, digest: Digest) -> Iterator[bytes]:
        """Yield a blob's bytes as they are kept; raises NotFound."""
        ...


@runtime_checkable
class Tended(Readable, Occupied, Protocol):
    """A store that things may be taken from."""

    def remove(self, digest: Digest) -> None:
        """Delete a blob if it is there."""
        ...

    def set_aside(self, digest: Digest) -> str:
        """Move a damaged blob out of the way; returns where it is."""
        ...


def tended(store: BlobStore) -> Tended:
    """Return the store as one that can be looked after; raises InvalidInput if it cannot."""
    if not isinstance(store, Tended):
        raise InvalidInput("this needs a blob store in a folder or an object store")
    return store
