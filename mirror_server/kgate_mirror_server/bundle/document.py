"""`bundle.json`: what a bundle holds, in which part each byte lies, and on what it builds.

Format: `kgate.dev/bundle/v1`, sealed (see `sealed`). It stands in every part, so that each part
alone says which bundle it belongs to and what is still missing. Nothing is read from a disk here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from kgate_core import strictjson
from kgate_core.clock import read_time, write_time
from kgate_core.digest import Digest
from kgate_core.errors import InvalidInput
from kgate_core.manifest import MAX_SIZE
from kgate_mirror_server.bundle.layout import Entry, HeadFile, part_size, place
from kgate_mirror_server.bundle.sealed import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from kgate_mirror_server.bundle.layout import Placed

BUNDLE: Final = Kind("bundle.json", "kgate.dev/bundle/v1", "https://kgate.dev/bundle/v1")
MAX_PARTS: Final = 9_999
MAX_HEAD: Final = 1024  # files in every part: roots of ten years and the rest
_TRUST: Final = "trust/"


@dataclass(frozen=True, slots=True)
class Base:
    """What a differential builds on: blobs that its receiver said to hold, or was sent before."""

    digest: Digest
    """Of the receipt (or of the sender's own record) without its signature."""
    sequence: int
    """Of the bundle that this receipt is about."""

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {"receipt": str(self.digest), "sequence": self.sequence}


@dataclass(frozen=True, slots=True)
class BundleDocument:
    """The plan of a bundle; equal plans give equal bytes in every part."""

    site: str
    """The sender, as its trust metadata names it."""
    sequence: int
    """Grows with every export of a site: the version of the timestamp that travels with it."""
    created: datetime
    publications: tuple[Digest, ...]
    """Documents of everything the sender publishes, also of what the receiver holds already."""
    policy: Digest | None
    """The sender's policy file, for people; a receiver applies its own."""
    head: tuple[HeadFile, ...]
    parts: tuple[tuple[Entry, ...], ...]
    base: Base | None = None
    feed: Digest | None = None
    """The sender's snapshot of advisory feeds; a receiver takes of it what counts there."""

    @property
    def blobs(self) -> dict[Digest, int]:
        """Every blob in the bundle with its size in bytes."""
        return {entry.blob: entry.of or entry.size for entries in self.parts for entry in entries}

    @property
    def trust_files(self) -> tuple[HeadFile, ...]:
        """The sender's trust documents."""
        return tuple(item for item in self.head if item.path.startswith(_TRUST))

    def place(self, part: int, document_size: int) -> Iterator[Placed]:
        """Yield every file of a part, counted from 0."""
        return place(document_size, self.head, self.parts[part])

    def part_size(self, part: int, document_size: int) -> int:
        """Return the exact size of a part in bytes."""
        return part_size(document_size, self.head, self.parts[part])

    def to_json(self) -> dict[str, Any]:
        """Return the document that is signed."""
        return {
            "schema": BUNDLE.schema,
            "site": self.site,
            "sequence": self.sequence,
            "created": write_time(self.created),
            "base": self.base.to_json() if self.base else None,
            "policy": str(self.policy) if self.policy else None,
            **({} if self.feed is None else {"feed": str(self.feed)}),
            "publications": [str(digest) for digest in self.publications],
            "head": [
                {"path": item.path, "digest": str(item.digest), "size": item.size}
                for item in self.head
            ],
            "parts": [[_entry_json(entry) for entry in part] for part in self.parts],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> BundleDocument:
        """Read what `to_json` wrote; raises InvalidInput, also if segments do not make a blob."""
        what = BUNDLE.name
        known = {"schema", "site", "sequence", "created", "base", "policy", "publications"}
        strictjson.refuse_unknown(data, known | {"head", "parts", "feed"}, what=what)
        base, policy = data.get("base"), data.get("policy")
        parts = strictjson.take(data, "parts", list, what=what)
        head = strictjson.take(data, "head", list, what=what)
        if not 1 <= len(parts) <= MAX_PARTS or len(head) > MAX_HEAD:
            raise InvalidInput(f"{what}: {len(parts)} parts, {len(head)} files in each")
        document = cls(
            strictjson.take(data, "site", str, what=what),
            strictjson.take(data, "sequence", int, what=what),
            read_time(strictjson.take(data, "created", str, what=what), what=what),
            tuple(
                Digest.parse(text)
                for text in strictjson.take_strings(data, "publications", what=what)
            ),
            None if policy is None else Digest.parse(policy),
            tuple(_read_head(item) for item in head),
            tuple(_read_part(item) for item in parts),
            None if base is None else _read_base(base),
            Digest.parse(data["feed"]) if "feed" in data else None,
        )
        _check_whole(document)
        return document


def _entry_json(entry: Entry) -> dict[str, Any]:
    data: dict[str, Any] = {"digest": str(entry.digest), "size": entry.size}
    if entry.cut:
        data |= {"blob": str(entry.blob), "offset": entry.offset, "of": entry.of}
    return data


def _read_base(data: strictjson.JsonValue) -> Base:
    what = f"{BUNDLE.name}: base"
    return Base(
        Digest.parse(strictjson.take(data, "receipt", str, what=what)),
        strictjson.take(data, "sequence", int, what=what),
    )


def _read_head(data: strictjson.JsonValue) -> HeadFile:
    what = f"{BUNDLE.name}: head"
    path = strictjson.take(data, "path", str, what=what)
    return HeadFile(
        path, Digest.parse(strictjson.take(data, "digest", str, what=what)), _size(data, "size")
    )


def _read_part(data: strictjson.JsonValue) -> tuple[Entry, ...]:
    if not isinstance(data, list):
        raise InvalidInput(f"{BUNDLE.name}: a part should be a list")
    return tuple(_read_entry(item) for item in data)


def _read_entry(data: strictjson.JsonValue) -> Entry:
    what = f"{BUNDLE.name}: entry"
    digest = Digest.parse(strictjson.take(data, "digest", str, what=what))
    size = _size(data, "size")
    if "of" not in data:
        strictjson.refuse_unknown(data, {"digest", "size"}, what=what)
        return Entry(digest, size, digest)
    strictjson.refuse_unknown(data, {"digest", "size", "blob", "offset", "of"}, what=what)
    blob = Digest.parse(strictjson.take(data, "blob", str, what=what))
    entry = Entry(digest, size, blob, _size(data, "offset"), _size(data, "of"))
    if not 0 < entry.size < entry.of or entry.offset + entry.size > entry.of:
        raise InvalidInput(f"{what}: {size} bytes at {entry.offset} of {entry.of}")
    return entry


def _size(data: strictjson.JsonValue, key: str) -> int:
    size = strictjson.take(data, key, int, what=BUNDLE.name)
    if not 0 <= size <= MAX_SIZE:
        raise InvalidInput(f"{BUNDLE.name}: impossible {key} {size}")
    return size


def _check_whole(document: BundleDocument) -> None:
    """Refuse plans in which a blob stands twice or its segments leave a gap."""
    whole: set[Digest] = set()
    segments: dict[Digest, list[Entry]] = {}
    for entry in (entry for part in document.parts for entry in part):
        if entry.cut:
            segments.setdefault(entry.blob, []).append(entry)
        elif entry.blob in whole:
            raise InvalidInput(f"{BUNDLE.name}: {entry.blob} stands twice")
        else:
            whole.add(entry.blob)
    for blob, found in segments.items():
        position = 0
        for entry in sorted(found, key=lambda item: item.offset):
            if entry.offset != position or entry.of != found[0].of:
                position = -1
                break
            position += entry.size
        if position != found[0].of or blob in whole:
            raise InvalidInput(f"{BUNDLE.name}: the segments of {blob} do not make it whole")
