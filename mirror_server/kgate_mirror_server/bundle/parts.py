"""Find the parts of a bundle and read them, believing nothing but the signed plan.

Tar headers are compared byte for byte with those that follow from the plan; no name, size or
position in them is used. What is wrong with a part is told as a sentence, so that one bad disc can
be replaced and the others be taken.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kgate_core.errors import IntegrityError, InvalidInput, KgateError, NotFound
from kgate_mirror_server.bundle.document import BUNDLE, BundleDocument
from kgate_mirror_server.bundle.layout import BLOCK, DOCUMENT, END, header, padded, read_header
from kgate_mirror_server.bundle.sealed import MAX_BYTES, Sealed
from kgate_mirror_server.bundle.streams import CHUNK

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from typing import BinaryIO

    from kgate_mirror_server.bundle.layout import Placed

_NAME: Final = re.compile(r"-(\d{3,4})-of-\d{3,4}\.tar$")
MAX_HEAD_FILE: Final = 64 * 1024**2  # bytes of one file that stands in every part


@dataclass(frozen=True, slots=True)
class PartFile:
    """A file that begins as a part does."""

    path: Path
    raw: bytes
    """Its `bundle.json`, unverified."""
    sealed: Sealed | None
    """None if that cannot be read."""

    @property
    def claims(self) -> tuple[object, ...] | None:
        """Which bundle it says it belongs to."""
        if self.sealed is None:
            return None
        said = self.sealed.document
        return tuple(said.get(name) for name in ("site", "sequence", "created"))


@dataclass(frozen=True, slots=True)
class Located:
    """A part of the chosen bundle: which one, and what is wrong with its outside."""

    path: Path
    number: int | None
    """Counted from 0; None if its first entry says none of them."""
    trouble: str = ""


def find_parts(places: Sequence[Path]) -> list[PartFile]:
    """Read the beginning of every tar file in these folders (or files).

    Raises NotFound if none is a part, InvalidInput if one was written by a newer kgate.
    """
    paths = [
        path
        for place in places
        for path in (sorted(place.glob("*.tar")) if place.is_dir() else [place])
    ]
    found = []
    reasons = []
    for path in paths:
        try:
            raw = _read_document(path)
        except KgateError as exc:
            reasons.append(exc.message)
            continue
        found.append(PartFile(path, raw, _parse(raw)))
    if not found:
        where = ", ".join(str(place) for place in places)
        raise NotFound(
            f"there is no part of a bundle in {where}" + (f" ({reasons[0]})" if reasons else ""),
            hint="is this the right disc? parts are named kgate-bundle-<number>-<part>.tar",
        )
    return found


def choose_bundle(found: Sequence[PartFile]) -> list[PartFile]:
    """Return the files with the description that most of them share.

    Raises InvalidInput naming two files that say they are of different bundles, or if none has a
    readable description.
    """
    groups: dict[bytes, list[PartFile]] = {}
    for file in found:
        if file.sealed is not None:
            groups.setdefault(file.raw, []).append(file)
    if not groups:
        raise InvalidInput(f"{found[0].path.name}: its {DOCUMENT} is damaged")
    chosen = max(groups.values(), key=len)
    for other in found:
        if other.claims not in {None, chosen[0].claims}:
            raise InvalidInput(
                f"{chosen[0].path.name} and {other.path.name} are parts of different bundles",
                hint="take the parts of one bundle at a time: put the others elsewhere",
            )
    return chosen


def locate(found: Sequence[PartFile], chosen: PartFile, document: BundleDocument) -> list[Located]:
    """Say which part each file is, by what the plan puts after the head, and if it is whole."""
    located = []
    for file in found:
        number = None
        if file.raw != chosen.raw:
            trouble = f"its {DOCUMENT} is damaged"
        elif (number := _number(file, document)) is None:
            trouble = "it is none of the bundle's parts, or its beginning is damaged"
        else:
            size, expected = file.path.stat().st_size, document.part_size(number, len(file.raw))
            trouble = f"it has {size} bytes instead of {expected}" if size != expected else ""
        located.append(Located(file.path, number, trouble))
    return located


def read_head(file: PartFile, document: BundleDocument) -> dict[str, bytes]:
    """Return the files that stand in every part, by path; raises IntegrityError."""
    found = {}
    with file.path.open("rb") as stream:
        for placed in document.place(0, len(file.raw)):
            if placed.head is None:
                continue
            if placed.size > MAX_HEAD_FILE:
                raise InvalidInput(f"{placed.path}: {placed.size} bytes in every part")
            data = b"".join(read_content(stream, placed))
            if hashlib.sha256(data).hexdigest() != placed.head.digest.hex:
                raise IntegrityError(f"{file.path.name}: {placed.path} is damaged")
            found[placed.path] = data
    return found


def check_header(stream: BinaryIO, placed: Placed) -> None:
    """Raise IntegrityError unless the tar header is the one that follows from the plan."""
    stream.seek(placed.header)
    if stream.read(BLOCK) != header(placed.path, placed.size):
        raise IntegrityError(f"the header of {placed.path} is damaged")


def check_padding(stream: BinaryIO, placed: Placed) -> None:
    """Raise IntegrityError unless the bytes after a file's content are zeros."""
    count = padded(placed.size) - placed.size
    stream.seek(placed.content + placed.size)
    if stream.read(count) != bytes(count):
        raise IntegrityError(f"the padding of {placed.path} is damaged")


def check_end(stream: BinaryIO, position: int) -> None:
    """Raise IntegrityError unless the archive ends here in zeros."""
    stream.seek(position)
    if stream.read(END + 1) != bytes(END):
        raise IntegrityError("the end of the archive is damaged")


def read_content(stream: BinaryIO, placed: Placed) -> Iterator[bytes]:
    """Yield a file's bytes; raises IntegrityError if the part ends early."""
    stream.seek(placed.content)
    left = placed.size
    while left:
        try:
            chunk = stream.read(min(CHUNK, left))
        except OSError as exc:
            raise IntegrityError(f"the disc cannot be read ({exc.strerror})") from exc
        if not chunk:
            raise IntegrityError(f"it ends {left} bytes before the end of {placed.path}")
        left -= len(chunk)
        yield chunk


def _parse(raw: bytes) -> Sealed | None:
    """Return the description, or None if it is damaged; raises InvalidInput for a newer format."""
    try:
        return Sealed.parse(raw, BUNDLE)
    except InvalidInput as exc:
        if "newer" in exc.hint:
            raise
        return None


def _read_document(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            stated = read_header(stream.read(BLOCK))
            if stated is None or stated[0] != DOCUMENT or stated[1] > MAX_BYTES:
                raise InvalidInput(f"{path.name} does not begin like a part")
            data = stream.read(stated[1])
    except OSError as exc:
        raise KgateError(f"{path}: cannot be read ({exc.strerror})") from exc
    if len(data) != stated[1]:
        raise InvalidInput(f"{path.name} ends in its {DOCUMENT}")
    return data


def _number(file: PartFile, document: BundleDocument) -> int | None:
    """Return which part this is by its first entry; parts hold different entries first."""
    with file.path.open("rb") as stream:
        for number in range(len(document.parts)):
            first = next(
                (item for item in document.place(number, len(file.raw)) if item.entry), None
            )
            if first is None:
                return number
            stream.seek(first.header)
            if stream.read(BLOCK) == header(first.path, first.size):
                return number
    # Its name only serves to say which disc is bad: what is read is compared with the plan.
    named = _NAME.search(file.path.name)
    number = int(named[1]) - 1 if named else -1
    return number if 0 <= number < len(document.parts) else None
