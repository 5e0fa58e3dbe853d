"""Read blobs in pieces, hashing beside the reading. It writes nothing."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from kgate_core.digest import Digest
from kgate_core.errors import IntegrityError, KgateError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kgate_mirror_server.ports import BlobStore

CHUNK: Final = 1024 * 1024  # bytes


def read_blob(store: BlobStore, blob: Digest, offset: int, size: int) -> Iterator[bytes]:
    """Yield `size` bytes of a stored blob from `offset` on; raises NotFound, IntegrityError."""
    with store.open(blob) as stream:
        try:
            stream.seek(offset)
            while size and (chunk := stream.read(min(CHUNK, size))):
                size -= len(chunk)
                yield chunk
        except OSError as exc:
            raise KgateError(f"the blob {blob} cannot be read ({exc.strerror})") from exc
    if size:
        raise IntegrityError(f"the stored blob {blob} ends {size} bytes early")


def segment_digests(store: BlobStore, blob: Digest, sizes: Sequence[int]) -> list[Digest]:
    """Return the digests of consecutive segments, reading once; IntegrityError if damaged.

    The blob's own digest is computed on a second core, which costs next to no time.
    """
    whole = hashlib.sha256()
    found = []
    offset = 0
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(whole.update, b"")
        for size in sizes:
            state = hashlib.sha256()
            for chunk in read_blob(store, blob, offset, size):
                pending.result()
                pending = pool.submit(whole.update, chunk)
                state.update(chunk)
            found.append(Digest(state.hexdigest()))
            offset += size
        pending.result()
    if whole.hexdigest() != blob.hex:
        raise IntegrityError(f"the stored blob {blob} is damaged", hint="run `kgate scrub`")
    return found
