"""Git's object ids, as the Hub names small files; for comparison with upstream only.

SHA-1 here is git's, not ours: nothing is trusted because of it alone. kgate's own digests are
sha256.
"""

from __future__ import annotations

import hashlib


def blob_oid(data: bytes) -> str:
    """Return the git blob id of these bytes in hex."""
    state = hashlib.sha1(b"blob %d\0" % len(data), usedforsecurity=False)
    state.update(data)
    return state.hexdigest()


def lfs_pointer(sha256_hex: str, size: int) -> bytes:
    """Return the LFS pointer file for a content (Git LFS specification v1)."""
    return (
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256_hex}\nsize {size}\n"
    ).encode("ascii")
