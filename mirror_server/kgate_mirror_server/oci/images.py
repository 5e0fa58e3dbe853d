"""Container images in a registry, layer by layer, for whoever looks into them.

A reference is `[oci://]HOST[:PORT]/NAME[:TAG][@sha256:…]`; an index is followed to the images for
one platform. Layers are streamed, nothing is stored, and what is inside is not looked at here.
Manifests are compared with their digests; layers are by their reader, who needs every byte anyway.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Final, cast

from kgate_core import strictjson
from kgate_core.digest import Digest
from kgate_core.errors import IntegrityError, InvalidInput, NotFound
from kgate_mirror_server.oci.credentials import SCHEME, Access, Place
from kgate_mirror_server.oci.registry import Registry
from kgate_scanner.layers import Image, Layer, layers_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kgate_mirror_server.ingest.fetch import Progress
    from kgate_mirror_server.oci.registry import Manifest, Repository

_MAX_IMAGES: Final = 64  # of one reference: variants of a kernel, mostly
_MAX_DEPTH: Final = 4  # of indexes in indexes
_MAX_CONFIG: Final = 4 * 1024**2  # bytes
_REFERENCE: Final = re.compile(
    r"(?P<host>[A-Za-z0-9][A-Za-z0-9.-]*(?::[0-9]{1,5})?|\[[0-9a-fA-F:]+\](?::[0-9]{1,5})?)"
    r"/(?P<name>[a-z0-9._/-]+)(?::(?P<tag>\w[\w.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class ImageReference:
    """An image in a registry; a digest counts before a tag."""

    host: str
    name: str
    target: str | Digest

    @classmethod
    def parse(cls, text: str) -> ImageReference:
        """Read a reference; raises InvalidInput.

        Without `oci://`, a name such as `build/sample` is no reference: it has neither a host with
        a dot or a port, nor a tag or digest.
        """
        found = _REFERENCE.fullmatch(text.removeprefix(SCHEME))
        if found is None or not (
            text.startswith(SCHEME)
            or found["tag"]
            or found["digest"]
            or re.search(r"[.:]|^localhost$", found["host"])
        ):
            raise InvalidInput(
                f"not an image in a registry: {text!r}",
                hint="write registry.example/ai/vllm:1.2 or registry.example/ai/vllm@sha256:…",
            )
        target = Digest.parse(found["digest"]) if found["digest"] else found["tag"] or "latest"
        return cls(found["host"], found["name"], target)


@dataclass(frozen=True, slots=True)
class RemoteImage:
    """One image of a reference."""

    image: Image
    digest: Digest
    """Of its manifest."""
    config: Digest
    config_size: int
    size: int
    """Bytes of all layers, compressed as they are."""


class RemoteImages:
    """What a reference names, for one platform."""

    def __init__(self, reference: ImageReference, access: Access | None = None) -> None:
        self._reference = reference
        self._repository: Repository = Registry(Place(reference.host), access).named(reference.name)

    def find(self, platform: str, progress: Progress) -> list[RemoteImage]:
        """Return the images for a platform such as `linux/arm64`, ready to be read.

        `progress` gets the number of bytes as layers are read. Raises UpstreamError,
        IntegrityError, and NotFound also if there is none for the platform.
        """
        top = self._repository.manifest(self._reference.target)
        name = f"{self._reference.host}/{self._reference.name}@{top.descriptor.digest.short}"
        seen: list[str] = []
        found = list(self._images(top, name, platform, progress, seen))
        if not found:
            raise NotFound(
                f"{name} holds no image for {platform}"
                + (f", only for {', '.join(sorted(set(seen)))}" if seen else ""),
                hint="name another --platform, or the digest of one image",
            )
        return found

    def config(self, image: RemoteImage) -> bytes:
        """Return an image's configuration; raises IntegrityError, UpstreamError."""
        if image.config_size > _MAX_CONFIG:
            raise InvalidInput(f"{image.image.name}: a configuration of {image.config_size} bytes")
        data = b"".join(self._repository.pull_blob(image.config, image.config_size))
        if Digest.of(data) != image.config:
            raise IntegrityError(f"{image.image.name}: its configuration is not {image.config}")
        return data

    def _images(
        self, manifest: Manifest, name: str, platform: str, progress: Progress, seen: list[str]
    ) -> Iterator[RemoteImage]:
        pending: list[tuple[Manifest, str, int]] = [(manifest, name, 0)]
        count = 0
        while pending:
            found, title, depth = pending.pop(0)
            fields = found.fields
            if "layers" in fields:
                yield self._image(found, fields, title, progress)
                continue
            for item in found.descriptors("manifests"):
                count += 1
                if count > _MAX_IMAGES or depth > _MAX_DEPTH:
                    raise InvalidInput(f"{name} names more than {_MAX_IMAGES} images")
                own = "/".join(filter(None, map(item.platform.get, ("os", "architecture"))))
                seen += [own] if own else []
                variant = item.annotations.get("dev.kgate.variant", "")
                if own == platform:
                    inner = self._repository.manifest(item.digest)
                    pending.append((inner, f"{title} {variant}".strip(), depth + 1))

    def _image(
        self, manifest: Manifest, fields: dict[str, Any], title: str, progress: Progress
    ) -> RemoteImage:
        layers = layers_of(fields)
        config = strictjson.take(fields, "config", dict, what=title)
        return RemoteImage(
            Image(title, layers, self._opener(progress)),
            manifest.descriptor.digest,
            Digest.parse(strictjson.take(config, "digest", str, what=title)),
            strictjson.take(config, "size", int, what=title),
            sum(layer.size for layer in layers),
        )

    def _opener(self, progress: Progress) -> Any:  # noqa: ANN401  # a context manager's function
        @contextmanager
        def opened(layer: Layer) -> Iterator[IO[bytes]]:
            chunks = self._repository.pull_blob(layer.digest, layer.size)
            yield cast("IO[bytes]", _Stream(chunks, progress))

        return opened


class _Stream:
    """Chunks as a file that can be read forwards."""

    def __init__(self, chunks: Iterator[bytes], progress: Progress) -> None:
        self._chunks = chunks
        self._progress = progress
        self._rest = memoryview(b"")

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes, none at the end; raises UpstreamError, NotFound."""
        if not self._rest:
            chunk = next(self._chunks, b"")
            self._progress(len(chunk))
            self._rest = memoryview(chunk)
        data, self._rest = self._rest[:size], self._rest[size:]
        return bytes(data)
