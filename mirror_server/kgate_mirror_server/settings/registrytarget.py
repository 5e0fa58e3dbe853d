"""The machine that an image in a registry is for, read once for each digest and kept.

A target is part of the lock, so the image must be named by digest: under a tag it could be another
tomorrow. Layers are streamed with the user's own credentials and compared with their digests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kgate_core import strictjson
from kgate_core.digest import Digest
from kgate_core.errors import InvalidInput
from kgate_mirror_server.oci.images import ImageReference, RemoteImages
from kgate_mirror_server.settings.imagetarget import read_streamed
from kgate_mirror_server.settings.targets import Target
from kgate_mirror_server.trust.files import replace_file

if TYPE_CHECKING:
    from pathlib import Path

_PLATFORMS = {"x86_64": "linux/amd64", "aarch64": "linux/arm64"}
_FIELDS = ("torch", "cuda", "rocm", "arch")


def read_remote(target: Target, kept: Path) -> Target:
    """Return the machine of a target's image; `kept` is the folder of what was read before.

    Raises InvalidInput for a reference without a digest, and as reading the registry does.
    """
    place = target.image or ""
    reference = ImageReference.parse(place)
    if not isinstance(reference.target, Digest):
        raise InvalidInput(
            f"targets: {place} names no digest",
            hint="a tag can move: write oci://HOST/NAME@sha256:…",
        )
    path = kept / f"{reference.target.hex}.{target.arch}.json"
    if not path.exists():
        remote = RemoteImages(reference)
        found = remote.find(_PLATFORMS[target.arch], lambda _count: None)
        if len(found) != 1:
            raise InvalidInput(f"{place} names {len(found)} images", hint="name one by its digest")
        read = read_streamed(found[0].image, remote.config(found[0]))
        kept.mkdir(parents=True, exist_ok=True)
        replace_file(path, strictjson.dumps({name: getattr(read, name) for name in _FIELDS}))
    fields = strictjson.loads(path.read_bytes(), what=str(path))
    if not isinstance(fields, dict):
        raise InvalidInput(f"{path}: not an object", hint="delete the file: it is read anew")
    return Target.model_validate({**fields, "gpus": target.gpus})
