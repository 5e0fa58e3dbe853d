"""Bodies of uploads: chunks of a blob, hashed once however often they have to be sent.

Nothing is sent here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Opened = Callable[[int], Iterator[bytes]]
    """Yields a blob's bytes from an offset on."""


class HashedChunk:
    """A chunk of a blob whose bytes are hashed once, however often they are sent."""

    def __init__(self, opened: Opened, offset: int, count: int, state: Any) -> None:  # noqa: ANN401  # as above
        self._opened = opened
        self._start, self._end = offset, offset + count
        self._hashed = offset
        self._state = state

    def rest(self, at: int) -> Body:
        """Return what is left to send from a position on."""
        return Body(self._read(at), self._end - at)

    def finish(self) -> None:
        """Hash what a registry that needed no bytes was never sent."""
        for _ in self._read(self._hashed):
            pass

    def _read(self, at: int) -> Iterator[bytes]:
        position = at
        for chunk in self._opened(at):
            piece = chunk[: self._end - position]
            if position + len(piece) > self._hashed:
                self._state.update(piece[max(0, self._hashed - position) :])
                self._hashed = position + len(piece)
            position += len(piece)
            if piece:
                yield piece
            if position >= self._end:
                return


class Body:
    """An iterable with a length, which requests sends as it is instead of in HTTP chunks."""

    def __init__(self, chunks: Iterator[bytes], size: int) -> None:
        self._chunks = chunks
        self._size = size

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        return self._chunks
