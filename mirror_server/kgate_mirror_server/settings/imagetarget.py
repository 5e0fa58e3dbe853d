"""Read from a container image which machine it is for: torch, CUDA or ROCm, processor.

An image is an OCI layout (`PATH` or `PATH@sha256:…` of one manifest in it) or the root of an
unpacked one. What counts is torch's own `version.py`, as text: nothing of the image runs. GPUs are
not in an image, and nothing is fetched: layers of a registry are handed in.
"""

from __future__ import annotations

import ast
import json
import os
import tarfile
import zlib
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final, Literal

import zstandard

from kgate_core import strictjson
from kgate_core.digest import Digest
from kgate_core.errors import InvalidInput, NotFound
from kgate_mirror_server.settings.targets import Target
from kgate_scanner.layers import unpacked

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kgate_scanner.layers import Image

Arch = Literal["x86_64", "aarch64"]
_VERSION: Final = ("torch", "version.py")
_HOMES: Final = frozenset({"site-packages", "dist-packages"})
_MAX_TEXT: Final = 64 * 1024  # bytes of version.py
_MAX_DOCUMENT: Final = 4 * 1024**2  # bytes
_MAX_DEPTH: Final = 8  # of indexes in indexes
_NOT_SEARCHED: Final = frozenset({"proc", "sys", "dev"})
_ARCHS: Final[Mapping[str, Arch]] = {"amd64": "x86_64", "arm64": "aarch64"}
_MACHINES: Final[Mapping[int, Arch]] = {0x3E: "x86_64", 0xB7: "aarch64"}  # ELF e_machine


def read_image(place: str, gpus: tuple[str, ...] = ()) -> Target:
    """Return the machine that an image is for; raises NotFound, InvalidInput."""
    name, at, digest = place.partition("@sha256:")
    path = Path(name)
    if not path.is_dir():
        raise NotFound(
            f"{name} is no OCI layout and no unpacked image",
            hint="write one with `skopeo copy docker://IMAGE oci:DIR`, or unpack the image",
        )
    if (path / "oci-layout").is_file():
        text, arch = _from_layout(path, Digest.parse(f"sha256:{digest}") if at else None)
    else:
        text, arch = _from_root(path)
    return _target(text, arch, gpus, name)


def read_streamed(image: Image, config: bytes, gpus: tuple[str, ...] = ()) -> Target:
    """Return the machine that an image is for whose layers come from elsewhere, one by one.

    `config` are the bytes of its configuration. Raises NotFound, InvalidInput, IntegrityError.
    """
    said = strictjson.loads(config, what=image.name, max_bytes=_MAX_DOCUMENT, floats=True)
    arch = _ARCHS.get(strictjson.take(said, "architecture", str, what=image.name))
    if arch is None:
        raise InvalidInput(f"{image.name}: the architecture {said['architecture']!r} is unknown")
    text: str | None = None
    for layer in image.layers:
        with (
            unpacked(image, layer) as stream,
            tarfile.open(fileobj=stream, mode="r|") as archive,
        ):
            text = _from_tar(archive, text)
    if text is None:
        raise NotFound(f"{image.name}: there is no torch in the image")
    return _target(text, arch, gpus, image.name)


def _target(text: str, arch: Arch, gpus: tuple[str, ...], what: str) -> Target:
    said = _assignments(text, what)
    if not (torch := said.get("__version__")):
        raise InvalidInput(f"{what}: torch/version.py names no version")
    return Target(torch=torch, cuda=said.get("cuda"), rocm=said.get("hip"), arch=arch, gpus=gpus)


def _assignments(text: str, what: str) -> dict[str, str]:
    """Return the texts that are assigned to names at the top of a module, without running it."""
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as exc:
        raise InvalidInput(f"{what}: torch/version.py is not Python") from exc
    found: dict[str, str] = {}
    for node in body:
        if isinstance(node, ast.Assign):
            names, value = node.targets, node.value
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            names, value = [node.target], node.value
        else:
            continue
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            found |= {name.id: value.value for name in names if isinstance(name, ast.Name)}
    return found


def _from_root(root: Path) -> tuple[str, Arch]:
    for folder, children, _ in os.walk(root, followlinks=False):
        if Path(folder) == root:
            children[:] = [name for name in children if name not in _NOT_SEARCHED]
        children.sort()
        version = Path(folder, *_VERSION)
        if Path(folder).name in _HOMES and version.is_file() and not version.is_symlink():
            text = version.read_bytes()[:_MAX_TEXT].decode("utf-8", "replace")
            return text, _machine(version.parent)
    raise NotFound(f"{root}: there is no torch in the image")


def _machine(torch: Path) -> Arch:
    for library in sorted(torch.rglob("*.so")):
        with library.open("rb") as stream:
            head = stream.read(20)
        if head[:4] == b"\x7fELF" and (found := _MACHINES.get(int.from_bytes(head[18:], "little"))):
            return found
    raise InvalidInput(f"{torch} has no library that tells the processor")


def _from_layout(layout: Path, digest: Digest | None) -> tuple[str, Arch]:
    wanted = [
        manifest
        for found, manifest in _manifests(layout, _document(layout / "index.json"), 0)
        if digest in {None, found}
    ]
    if len(wanted) != 1:
        raise InvalidInput(
            f"{layout}: {len(wanted)} images are meant",
            hint="name one of a layout as PATH@sha256:… of its manifest",
        )
    (manifest,) = wanted
    config = _document(_blob(layout, manifest.get("config")))
    arch = _ARCHS.get(str(config.get("architecture")))
    if arch is None:
        raise InvalidInput(f"{layout}: the architecture {config.get('architecture')!r} is unknown")
    text = None
    for layer in manifest["layers"]:
        text = _from_layer(_blob(layout, layer), str(layer.get("mediaType")), text)
    if text is None:
        raise NotFound(f"{layout}: there is no torch in the image")
    return text, arch


def _manifests(
    layout: Path, index: dict[str, Any], depth: int
) -> Iterator[tuple[Digest, dict[str, Any]]]:
    if depth > _MAX_DEPTH:
        raise InvalidInput(f"{layout}: indexes are nested deeper than {_MAX_DEPTH}")
    for entry in index.get("manifests") or ():
        blob = _blob(layout, entry)
        document = _document(blob)
        if "manifests" in document:
            yield from _manifests(layout, document, depth + 1)
        elif isinstance(document.get("layers"), list):
            yield Digest(blob.name), document


def _from_layer(blob: Path, media_type: str, below: str | None) -> str | None:
    """Return torch's version.py after a layer was put over what was below it."""
    found = below
    try:
        with blob.open("rb") as raw:
            stream: Any = raw
            if media_type.endswith("zstd"):
                stream = zstandard.ZstdDecompressor().stream_reader(raw)
            # Whatever else it is compressed with, tarfile sees by itself.
            with tarfile.open(fileobj=stream, mode="r|*") as archive:
                found = _from_tar(archive, below)
    except (tarfile.TarError, zlib.error, zstandard.ZstdError, EOFError, OSError) as exc:
        raise InvalidInput(f"layer {blob.name[:12]} cannot be read: {exc}") from exc
    return found


def _from_tar(archive: tarfile.TarFile, below: str | None) -> str | None:
    found = below
    for member in archive:
        parts = PurePosixPath(member.name).parts
        if _hides(parts):
            found = None
        elif member.isreg() and parts[-2:] == _VERSION and set(parts[-3:-2]) & _HOMES:
            content = archive.extractfile(member)
            found = content.read(_MAX_TEXT).decode("utf-8", "replace") if content else ""
    return found


def _hides(parts: tuple[str, ...]) -> bool:
    """Return whether a whiteout removes torch (OCI image specification, "Layers")."""
    if not parts or not parts[-1].startswith(".wh."):
        return False
    hidden = parts[-1].removeprefix(".wh.")
    if hidden == ".wh..opq":
        return parts[-2:-1] == ("torch",) or (len(parts) > 1 and parts[-2] in _HOMES)
    return hidden in _HOMES or (len(parts) > 1 and parts[-2] in _HOMES and hidden == "torch")


def _blob(layout: Path, descriptor: object) -> Path:
    digest = descriptor.get("digest") if isinstance(descriptor, dict) else None
    return layout / "blobs" / "sha256" / Digest.parse(str(digest)).hex


def _document(place: Path) -> dict[str, Any]:
    try:
        with place.open("rb") as stream:
            data = stream.read(_MAX_DOCUMENT + 1)
        document = json.loads(data) if len(data) <= _MAX_DOCUMENT else None
    except OSError as exc:
        raise InvalidInput(f"{place.name[:12]}: not in the layout ({exc.strerror})") from exc
    except (ValueError, RecursionError) as exc:
        raise InvalidInput(f"{place.name[:12]}: not JSON") from exc
    if not isinstance(document, dict):
        raise InvalidInput(f"{place.name[:12]}: not an object")
    return document
