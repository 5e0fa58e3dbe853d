"""Collects the binaries of a container image from an OCI image layout on a disk.

Layers are put on top of each other as the image specification says (whiteouts included), but only
files that hold machine code are unpacked, under numbers, never under a name from inside. Nothing
is fetched, no blob is verified (the digests of a report are those of the files themselves), and
Python sources of an image are not collected.
"""

from __future__ import annotations

import gzip
import tarfile
import zlib
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any, Final, cast

import zstandard

from kgate_core import strictjson
from kgate_core.digest import Digest
from kgate_core.errors import InvalidInput
from kgate_scanner.collection import Collection, printable
from kgate_scanner.filekind import HEAD_BYTES, FileKind, identify

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LAYOUT: Final = "oci-layout"
_INDEX: Final = "index.json"
_MAX_DOCUMENT: Final = 4 * 1024**2  # bytes of an index or manifest
_MAX_IMAGES: Final = 64
_MAX_MEMBERS: Final = 5_000_000  # entries of all layers together
_MAX_UNPACKED: Final = 64 * 1024**3  # bytes kept of one image
_CHUNK: Final = 1 << 20
_NO_CODE: Final = frozenset(
    {FileKind.OTHER, FileKind.EMPTY, FileKind.SCRIPT, FileKind.ARCHIVE, FileKind.PE}
)
_WHITEOUT: Final = ".wh."
_OPAQUE: Final = ".wh..wh..opq"


@dataclass(frozen=True, slots=True)
class Image:
    """One image of a layout: what it is called and its layers, the lowest first."""

    name: str
    layers: tuple[tuple[Path, str], ...]
    """Blob and media type of each layer."""


@dataclass(slots=True)
class _Stack:
    """Where the current content of each name was unpacked to."""

    into: Path
    places: dict[str, Path] = field(default_factory=dict)
    members: int = 0
    written: int = 0


def read_images(layout: Path) -> list[Image]:
    """Return the images of a layout; raises InvalidInput if its documents make no sense."""
    found: list[Image] = []
    pending = [(_document(layout / _INDEX), "")]
    while pending:
        index, title = pending.pop(0)
        for entry in strictjson.take(index, "manifests", list, what=_INDEX)[:_MAX_IMAGES]:
            inner = _document(_blob(layout, entry))
            name = _name(entry) or title
            if "manifests" in inner:
                pending.append((inner, name))
            elif "layers" in inner:
                found.append(Image(name, tuple(_layers(layout, inner))))
            if len(found) + len(pending) > _MAX_IMAGES:
                raise InvalidInput(f"the layout holds more than {_MAX_IMAGES} images")
    return found


def collect_image(image: Image, into: Path) -> Collection:
    """Unpack the binaries of an image under numbers in `into`; raises InvalidInput if broken."""
    stack = _Stack(into)
    for blob, media_type in image.layers:
        try:
            with _opened(blob, media_type) as content:
                _apply(content, stack)
        except (tarfile.TarError, zlib.error, zstandard.ZstdError, EOFError, OSError) as exc:
            raise InvalidInput(f"layer {blob.name[:12]} cannot be read: {exc}") from exc
    found = Collection()
    for name, place in sorted(stack.places.items()):
        found.add(name, place)
    return found


def _apply(content: IO[bytes], stack: _Stack) -> None:
    """Put one layer on top of those before it (OCI image specification, "Layers")."""
    below = set(stack.places)
    with tarfile.open(fileobj=content, mode="r|") as archive:
        for member in archive:
            stack.members += 1
            if stack.members > _MAX_MEMBERS:
                raise InvalidInput(f"the image has more than {_MAX_MEMBERS} entries")
            name = _normal(member.name)
            directory, _, base = name.rpartition("/")
            if base == _OPAQUE:
                _remove(stack, directory, among=below)
            elif base.startswith(_WHITEOUT):
                hidden = base.removeprefix(_WHITEOUT)
                _remove(stack, f"{directory}/{hidden}" if directory else hidden, among=below)
            elif member.isreg():
                _unpack(archive, member, name, stack)
            elif member.islnk() and (place := stack.places.get(_normal(member.linkname))):
                stack.places[name] = place
            elif not member.isdir():
                stack.places.pop(name, None)  # a link or device takes the place of a file


def _remove(stack: _Stack, name: str, *, among: set[str]) -> None:
    for path in [p for p in among if not name or p == name or p.startswith(f"{name}/")]:
        stack.places.pop(path, None)


def _unpack(archive: tarfile.TarFile, member: tarfile.TarInfo, name: str, stack: _Stack) -> None:
    stack.places.pop(name, None)
    source = archive.extractfile(member)
    head = b"" if source is None else source.read(HEAD_BYTES)
    if source is None or identify(head) in _NO_CODE:
        return
    place = stack.into / str(stack.members)
    with place.open("xb") as sink:
        chunk = head
        while chunk:
            stack.written += len(chunk)
            if stack.written > _MAX_UNPACKED:
                raise InvalidInput(f"{printable(name)}: the image unpacks to more than it may")
            sink.write(chunk)
            chunk = source.read(_CHUNK)
    stack.places[name] = place


def _normal(name: str) -> str:
    return "/".join(part for part in name.split("/") if part not in {"", "."})


@contextmanager
def _opened(blob: Path, media_type: str) -> Iterator[IO[bytes]]:
    with blob.open("rb") as raw:
        if media_type.endswith("+zstd"):
            with zstandard.ZstdDecompressor().stream_reader(raw) as content:
                yield cast("IO[bytes]", content)
        elif media_type.endswith(("+gzip", ".gzip")):
            with gzip.open(raw, "rb") as unzipped:
                yield cast("IO[bytes]", unzipped)
        else:
            yield raw


def _layers(layout: Path, manifest: dict[str, Any]) -> Iterator[tuple[Path, str]]:
    for layer in strictjson.take(manifest, "layers", list, what="image manifest"):
        media_type = strictjson.take(layer, "mediaType", str, what="layer")
        if "tar" in media_type:
            yield _blob(layout, layer), media_type


def _name(entry: dict[str, Any]) -> str:
    notes = entry.get("annotations") or {}
    platform = entry.get("platform") or {}
    words = (notes.get("org.opencontainers.image.ref.name"), platform.get("architecture"))
    return " ".join(printable(str(word)) for word in words if word)


def _blob(layout: Path, descriptor: object) -> Path:
    digest = Digest.parse(strictjson.take(descriptor, "digest", str, what="descriptor"))
    return layout / "blobs" / "sha256" / digest.hex


def _document(place: Path) -> dict[str, Any]:
    try:
        with place.open("rb") as content:
            data = content.read(_MAX_DOCUMENT + 1)
    except OSError as exc:
        raise InvalidInput(f"{place.name[:12]}: not in the layout ({type(exc).__name__})") from exc
    document = strictjson.loads(data, what=place.name[:12], max_bytes=_MAX_DOCUMENT, floats=True)
    if not isinstance(document, dict):
        raise InvalidInput(f"{place.name[:12]}: not an object")
    return document
