"""Hash stored files again and compare them with a manifest. It repairs nothing."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from kgate_core.digest import Digest
from kgate_core.errors import NotFound
from kgate_core.manifest import FileEntry
from kgate_core.verify import Reason, Rejected, Step

if TYPE_CHECKING:
    from kgate_core.manifest import Manifest
    from kgate_mirror_server.ports import BlobStore


def check_stored(store: BlobStore, manifest: Manifest) -> Rejected | None:
    """Return why the stored bytes are not those of the manifest, or None if they are."""
    found = []
    for entry in manifest.files:
        try:
            with store.open(entry.digest) as stream:
                digest = Digest(hashlib.file_digest(stream, "sha256").hexdigest())  # type: ignore[arg-type]  # a BinaryIO has readinto where it is a real file
                found.append(FileEntry(entry.path, stream.tell(), digest))
        except NotFound:
            continue
    said = manifest.differences(found)
    if not said:
        return None
    message = "; ".join(said[:3])
    return Rejected(Reason.WRONG_SUBJECT, message, (Step(0, "bytes", ok=False, detail=message),))
