"""Read blobs in pieces. It writes nothing and compares no digests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kgate_core.errors import IntegrityError, KgateError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kgate_core.digest import Digest
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
