"""Take the bytes of a bundle into the store: any order, any number of times, nothing unverified.

What is in the store already is passed over, so an interrupted run goes on where it was. Segments
whose blob is not complete yet wait in `<store>/incoming`. Nothing is published here.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from kgate_core.digest import Digest
from kgate_core.errors import IntegrityError
from kgate_mirror_server.bundle.parts import (
    check_end,
    check_header,
    check_padding,
    read_content,
)
from kgate_mirror_server.bundle.streams import read_blob
from kgate_mirror_server.store.copying import Piece
from kgate_mirror_server.store.disk import DiskStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from kgate_mirror_server.bundle.document import BundleDocument
    from kgate_mirror_server.bundle.layout import Entry, Placed
    from kgate_mirror_server.bundle.parts import Located
    from kgate_mirror_server.ingest.fetch import Progress
    from kgate_mirror_server.ports import BlobStore


LARGE: Final = 1024 * 1024  # bytes; smaller blobs are not worth a second thread


class PartState(StrEnum):
    """How a part came out."""

    TAKEN = "taken"
    DAMAGED = "damaged"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class PartReport:
    """How one part came out."""

    number: int | None
    """Counted from 1; None for a file that is no part that could be told."""
    name: str
    """File name; empty if it is absent."""
    state: PartState
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Received:
    """What a run brought."""

    parts: tuple[PartReport, ...]
    missing: tuple[Digest, ...]
    """Blobs of the bundle that are not in the store yet."""
    new_bytes: int

    @property
    def complete(self) -> bool:
        """True if everything of the bundle is there and no part looked wrong."""
        return not self.missing and all(p.state is not PartState.DAMAGED for p in self.parts)


@dataclass(slots=True)
class _Run:
    store: BlobStore
    staging: DiskStore
    progress: Progress
    troubles: dict[Path, str] = field(default_factory=dict)
    segments: dict[Digest, list[tuple[Entry, Path, Placed]]] = field(default_factory=dict)
    new_bytes: int = 0

    def blame(self, path: Path, why: str) -> None:
        self.troubles.setdefault(path, why)

    def count(self, size: int) -> None:
        self.new_bytes += size
        self.progress(size)

    def counted(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self.count(len(chunk))
            yield chunk


def bytes_to_take(store: BlobStore, document: BundleDocument, located: Sequence[Located]) -> int:
    """Return how many bytes of these parts the store does not hold yet."""
    numbers = {part.number for part in located if part.number is not None}
    entries = [entry for number in numbers for entry in document.parts[number]]
    held = {blob for blob in {entry.blob for entry in entries} if store.has(blob)}
    return sum(entry.size for entry in entries if entry.blob not in held)


def receive(
    store: BlobStore,
    staging: DiskStore,
    document: BundleDocument,
    document_size: int,
    located: Sequence[Located],
    progress: Progress,
    tell: Callable[[str], None],
) -> Received:
    """Take what these parts hold; raises KgateError only if the store cannot take it."""
    run = _Run(
        store, staging, progress, {part.path: part.trouble for part in located if part.trouble}
    )
    count = len(document.parts)
    for part in sorted(located, key=lambda item: item.number or 0):
        if part.number is not None:
            tell(f"reading part {part.number + 1} of {count}")
            _take_part(run, part.path, document, part.number, document_size)
    for blob, segments in run.segments.items():
        _assemble(run, document, blob, segments)
    missing = tuple(blob for blob in document.blobs if not store.has(blob))
    return Received(tuple(_reports(run, document, located)), missing, run.new_bytes)


def _take_part(
    run: _Run, path: Path, document: BundleDocument, number: int, document_size: int
) -> None:
    try:
        with path.open("rb") as stream:
            end = 0
            for placed in document.place(number, document_size):
                try:
                    check_header(stream, placed)
                    _take_file(run, path, placed)
                    check_padding(stream, placed)
                except IntegrityError as exc:
                    run.blame(path, exc.message)
                end = placed.end
            try:
                check_end(stream, end)
            except IntegrityError as exc:
                run.blame(path, exc.message)
    except OSError as exc:
        run.blame(path, f"it cannot be read ({exc.strerror})")


def _take_file(run: _Run, path: Path, placed: Placed) -> None:
    if placed.head is not None:
        # Read from the first part that has it whole; here only whether this copy is.
        _check_copy(path, placed)
    elif placed.entry is None or run.store.has(placed.entry.blob):
        return
    elif placed.entry.cut:
        run.segments.setdefault(placed.entry.blob, []).append((placed.entry, path, placed))
    else:
        _put(run, placed.entry.blob, path, placed)


def _put(run: _Run, digest: Digest, path: Path, placed: Placed) -> None:
    if placed.size < LARGE or not isinstance(run.store, DiskStore):
        run.store.put(digest, placed.size, run.counted(_content(path, placed)))
        return
    with path.open("rb") as stream:
        piece = Piece(stream, placed.content, placed.size, once=True)
        run.store.put_pieces(digest, placed.size, [piece], run.count)


def _check_copy(path: Path, placed: Placed) -> None:
    if placed.head is not None and Digest.of_chunks(_content(path, placed)) != placed.head.digest:
        raise IntegrityError(f"{placed.path} is damaged")


def _assemble(
    run: _Run,
    document: BundleDocument,
    blob: Digest,
    here: Sequence[tuple[Entry, Path, Placed]],
) -> None:
    """Store a cut blob if all of its segments can be had now; else keep those that are good."""
    if run.store.has(blob) or _put_whole(run, document, blob, here):
        return
    for entry, path, placed in here:
        try:
            run.staging.put(entry.digest, entry.size, _content(path, placed))
        except IntegrityError as exc:
            run.blame(path, f"{placed.path}: {exc.message}")


def _put_whole(
    run: _Run,
    document: BundleDocument,
    blob: Digest,
    here: Sequence[tuple[Entry, Path, Placed]],
) -> bool:
    """Store a blob from its segments; returns whether they were all there and good."""
    at = {entry.digest: (path, placed) for entry, path, placed in here}
    entries = (entry for part in document.parts for entry in part if entry.blob == blob)
    wanted = sorted(entries, key=lambda entry: entry.offset)
    if not all(entry.digest in at or run.staging.has(entry.digest) for entry in wanted):
        return False

    try:
        _join(run, blob, wanted, at)
    except IntegrityError:
        return False
    for entry in wanted:
        run.staging.remove(entry.digest)
    return True


def _join(
    run: _Run, blob: Digest, wanted: Sequence[Entry], at: Mapping[Digest, tuple[Path, Placed]]
) -> None:
    """Store a blob from its segments, those at hand and those that came earlier."""
    if isinstance(run.store, DiskStore):
        with ExitStack() as opened:
            pieces = []
            for entry in wanted:
                path, placed = (
                    at.get(entry.digest, (run.staging.path(entry.digest), None))
                    if entry.digest not in at
                    else at[entry.digest]
                )
                stream = opened.enter_context(path.open("rb"))
                pieces.append(Piece(stream, placed.content if placed else 0, entry.size, once=True))
            run.store.put_pieces(blob, wanted[0].of, pieces, run.count)
        return

    def chunks() -> Iterator[bytes]:
        for entry in wanted:
            if entry.digest in at:
                yield from run.counted(_content(*at[entry.digest]))
            else:
                yield from read_blob(run.staging, entry.digest, 0, entry.size)

    run.store.put(blob, wanted[0].of, chunks())


def _content(path: Path, placed: Placed) -> Iterator[bytes]:
    with path.open("rb") as stream:
        yield from read_content(stream, placed)


def _reports(
    run: _Run, document: BundleDocument, located: Sequence[Located]
) -> Iterator[PartReport]:
    here = {part.number: part for part in located if part.number is not None}
    for number, entries in enumerate(document.parts):
        part = here.get(number)
        name = "" if part is None else part.path.name
        if part is not None and part.path in run.troubles:
            why = run.troubles[part.path]
            yield PartReport(number + 1, name, PartState.DAMAGED, why)
        elif all(run.store.has(e.blob) or run.staging.has(e.digest) for e in entries):
            yield PartReport(number + 1, name, PartState.TAKEN)
        else:
            yield PartReport(number + 1, name, PartState.ABSENT)
    for part in located:
        if part.number is None:
            yield PartReport(None, part.path.name, PartState.DAMAGED, part.trouble)
