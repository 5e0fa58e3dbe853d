"""Git object ids of what is served: blobs, LFS pointers and the trees of a filtered view.

Formats: git's object hashing (type, size, NUL, content) and the Git LFS pointer file
v1. Ids are SHA-1 because git's are; nothing relies on them for safety.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kgate_core.digest import Digest


def blob_id(data: bytes) -> str:
    """Return the git id of a file with this content."""
    return _object_id(b"blob", data)


def pointer(digest: Digest, size: int) -> bytes:
    """Return the LFS pointer file that stands in git for a large file of `size` bytes."""
    text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest.hex}\nsize {size}\n"
    return text.encode("ascii")


def tree_id(entries: Iterable[tuple[str, str, bool]]) -> str:
    """Return the git id of a folder from (name, id in hex, is a folder)."""
    # Git sorts folders as if their names ended in a slash.
    ordered = sorted(entries, key=lambda entry: (entry[0] + "/" if entry[2] else entry[0]).encode())
    data = b"".join(
        (b"40000 " if folder else b"100644 ") + name.encode() + b"\0" + bytes.fromhex(identifier)
        for name, identifier, folder in ordered
    )
    return _object_id(b"tree", data)


def _object_id(kind: bytes, data: bytes) -> str:
    return hashlib.sha1(b"%b %d\0%b" % (kind, len(data), data), usedforsecurity=False).hexdigest()
