"""`metadata.json` of a build variant, with the digest of its files, as kernels 0.17 reads it.

No `provenance` is written: that field names the kernel-builder that made a build, and none did.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pathlib import Path

METADATA: Final = "metadata.json"
# The file cannot hold its own digest, nor that of the signature over itself.
_UNDIGESTED: Final = frozenset({METADATA, METADATA + ".sigstore"})


@dataclass(frozen=True, slots=True)
class Metadata:
    """What upstream's metadata says besides the digest; `identifier` becomes the module's name."""

    name: str
    identifier: str
    version: int
    license: str
    backend: str
    archs: tuple[str, ...] = ()
    upstream: str | None = None


def write_metadata(variant: Path, metadata: Metadata) -> None:
    """Write `metadata.json` into the folder `variant`, after its other files are in place."""
    document: dict[str, Any] = {
        "name": metadata.name,
        "id": metadata.identifier,
        "version": metadata.version,
        "license": metadata.license,
    }
    if metadata.upstream is not None:
        document["upstream"] = metadata.upstream
    backend: dict[str, Any] = {"type": metadata.backend}
    if metadata.archs:
        backend["archs"] = list(metadata.archs)
    document |= {
        "python-depends": [],
        "kernel-depends": [],
        "backend": backend,
        "digest": digest_of(variant),
    }
    text = json.dumps(document, indent=2) + "\n"
    (variant / METADATA).write_text(text, encoding="utf-8")


def digest_of(variant: Path) -> dict[str, Any]:
    """Return the `digest` member for the folder: base64 sha256 by relative path, sorted."""
    files = {
        path.relative_to(variant).as_posix(): base64.b64encode(
            hashlib.sha256(path.read_bytes()).digest()
        ).decode("ascii")
        for path in variant.rglob("*")
        if path.is_file() and _is_digested(path, variant)
    }
    return {"algorithm": "sha256", "files": dict(sorted(files.items()))}


def _is_digested(path: Path, variant: Path) -> bool:
    parts = path.relative_to(variant).parts
    # Upstream leaves bytecode out: an earlier import may have put it there.
    return (
        parts[0] not in _UNDIGESTED
        and "__pycache__" not in parts
        and not path.name.endswith(".pyc")
    )
