"""Collects the code of a container image, layer by layer, from wherever its blobs are.

Layers are put on top of each other as the image specification says (whiteouts included); what runs
is unpacked under numbers, never under a name from inside: machine code, Python beside it, and all
of `build/<variant>`, where a kernel lies. Every document and layer is compared with its digest
while it is read. Nothing is fetched here: whoever has the layers gives a way to open them.
"""

from __future__ import annotations

import gzip
import hashlib
import tarfile
import zlib
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any, Final, cast

import zstandard

from kgate_core import strictjson
from kgate_core.digest import Digest
from kgate_core.errors import IntegrityError, InvalidInput
from kgate_scanner.collection import Collection, printable
from kgate_scanner.filekind import HEAD_BYTES, FileKind, identify
from kgate_scanner.imagefiles import chosen, is_source, split

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from kgate_core.kernel import Variant

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
_BROKEN: Final = (tarfile.TarError, zlib.error, zstandard.ZstdError, EOFError, OSError)
_WHITEOUT: Final = ".wh."
_OPAQUE: Final = ".wh..wh..opq"


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer as the manifest names it."""

    digest: Digest
    size: int
    """Bytes, compressed as it is."""
    media_type: str


@dataclass(frozen=True, slots=True)
class Image:
    """One image: what it is called, its layers, the lowest first, and how to get at them."""

    name: str
    layers: tuple[Layer, ...]
    open_layer: Callable[[Layer], AbstractContextManager[IO[bytes]]]
    """Gives a layer's bytes, which need not be true: they are checked here."""


@dataclass(slots=True)
class _Stack:
    """Where the current content of each name was unpacked to."""

    into: Path
    places: dict[str, Path] = field(default_factory=dict)
    members: int = 0
    written: int = 0


def read_images(layout: Path) -> list[Image]:
    """Return the images of a layout; raises InvalidInput or IntegrityError for bad documents."""
    found: list[Image] = []
    pending = [(_document(layout / _INDEX), "")]

    @contextmanager
    def opened(layer: Layer) -> Iterator[IO[bytes]]:
        try:
            with (layout / "blobs" / "sha256" / layer.digest.hex).open("rb") as stream:
                yield stream
        except OSError as exc:
            raise InvalidInput(f"layer {layer.digest.short} cannot be read: {exc}") from exc

    while pending:
        index, title = pending.pop(0)
        for entry in strictjson.take(index, "manifests", list, what=_INDEX)[:_MAX_IMAGES]:
            digest = Digest.parse(strictjson.take(entry, "digest", str, what="descriptor"))
            inner = _document(layout / "blobs" / "sha256" / digest.hex, digest)
            name = _name(entry) or title
            if "manifests" in inner:
                pending.append((inner, name))
            elif "layers" in inner:
                found.append(Image(name, layers_of(inner), opened))
            if len(found) + len(pending) > _MAX_IMAGES:
                raise InvalidInput(f"the layout holds more than {_MAX_IMAGES} images")
    return found


def layers_of(manifest: dict[str, Any]) -> tuple[Layer, ...]:
    """Return the file system layers of an image manifest; raises InvalidInput."""
    return tuple(
        Layer(
            Digest.parse(strictjson.take(layer, "digest", str, what="layer")),
            strictjson.take(layer, "size", int, what="layer"),
            strictjson.take(layer, "mediaType", str, what="layer"),
        )
        for layer in strictjson.take(manifest, "layers", list, what="image manifest")
        if "tar" in strictjson.take(layer, "mediaType", str, what="layer")
    )


def collect_image(image: Image, into: Path) -> list[tuple[Variant | None, Collection]]:
    """Unpack the code of an image under numbers in `into`: kernels by variant, then the rest.

    Raises InvalidInput if a layer is broken, IntegrityError if it is not the one that was named.
    """
    stack = _Stack(into)
    for layer in image.layers:
        with unpacked(image, layer) as content:
            _apply(content, stack)
    return [
        (variant, _collection(places)) for variant, places in split(chosen(stack.places)).items()
    ]


@contextmanager
def unpacked(image: Image, layer: Layer) -> Iterator[IO[bytes]]:
    """Give a layer's tar; when the block ends it was the layer that the image names.

    Raises InvalidInput if it is broken, IntegrityError if it is another one.
    """
    with image.open_layer(layer) as raw:
        content = _Verified(raw, layer)
        try:
            with _opened(content, layer.media_type) as tar:
                yield tar
        except _BROKEN as exc:
            content.finish()  # bytes that were changed are the better explanation
            raise InvalidInput(f"layer {layer.digest.short} cannot be read: {exc}") from exc
        content.finish()


def _collection(places: dict[str, Path]) -> Collection:
    found = Collection()
    for name, place in sorted(places.items()):
        found.add(name, place)
    return found


class _Verified:
    """A layer's bytes on their way, hashed as they pass."""

    def __init__(self, raw: IO[bytes], layer: Layer) -> None:
        self._raw = raw
        self._layer = layer
        self._state = hashlib.sha256()
        self._count = 0

    def read(self, size: int = -1) -> bytes:
        """Return some bytes; raises IntegrityError for more than there should be."""
        data = self._raw.read(_CHUNK if size < 0 else size)
        self._state.update(data)
        self._count += len(data)
        if self._count > self._layer.size:
            raise IntegrityError(f"{self._layer.digest}: more than its {self._layer.size} bytes")
        return data

    def finish(self) -> None:
        """Read what is left; raises IntegrityError if it was not the layer that was named."""
        while self.read():
            pass
        found = self._state.hexdigest()
        if found != self._layer.digest.hex or self._count != self._layer.size:
            raise IntegrityError(
                f"layer {self._layer.digest.short} is not the one that the image names:"
                f" {self._count} bytes with sha256:{found}",
                hint="the blob was changed or damaged where it lies: get the image again",
            )


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
    if source is None or (identify(head) in _NO_CODE and not is_source(name)):
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
def _opened(raw: _Verified, media_type: str) -> Iterator[IO[bytes]]:
    stream = cast("IO[bytes]", raw)
    if media_type.endswith(("+zstd", ".zstd")):
        with zstandard.ZstdDecompressor().stream_reader(stream) as content:
            yield cast("IO[bytes]", content)
    elif media_type.endswith(("+gzip", ".gzip")):
        with gzip.GzipFile(fileobj=stream, mode="rb") as unzipped:
            yield cast("IO[bytes]", unzipped)
    else:
        yield stream


def _name(entry: dict[str, Any]) -> str:
    notes = entry.get("annotations") or {}
    platform = entry.get("platform") or {}
    words = (notes.get("org.opencontainers.image.ref.name"), platform.get("architecture"))
    return " ".join(printable(str(word)) for word in words if word)


def _document(place: Path, digest: Digest | None = None) -> dict[str, Any]:
    try:
        with place.open("rb") as content:
            data = content.read(_MAX_DOCUMENT + 1)
    except OSError as exc:
        raise InvalidInput(f"{place.name[:12]}: not in the layout ({type(exc).__name__})") from exc
    if digest is not None and Digest.of(data) != digest:
        raise IntegrityError(f"{digest}: the layout holds other bytes under this name")
    document = strictjson.loads(data, what=place.name[:12], max_bytes=_MAX_DOCUMENT, floats=True)
    if not isinstance(document, dict):
        raise InvalidInput(f"{place.name[:12]}: not an object")
    return document
