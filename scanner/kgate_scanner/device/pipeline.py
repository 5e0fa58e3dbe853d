"""Expands and hashes images on worker threads, in order, holding a bounded number of bytes.

hashlib and the decompressors release the interpreter lock, so this overlaps with the parsing of
earlier images and with whatever else hashes the file. It does not look into images.
"""

from __future__ import annotations

import hashlib
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kgate_core.digest import Digest
from kgate_core.errors import InvalidInput
from kgate_scanner.device.expansion import expand_lz4, expand_zlib, expand_zstd
from kgate_scanner.device.images import Compression, ImageKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from concurrent.futures import Executor, Future

    from kgate_scanner.device.extent import Payload
    from kgate_scanner.device.ledger import Ledger
    from kgate_scanner.device.limits import DeviceLimits

_IN_FLIGHT: Final = 64  # images


@dataclass(frozen=True, slots=True)
class Expanded:
    """One image with its bytes, or the reason why there are none."""

    payload: Payload
    content: memoryview | None
    digest: Digest | None
    error: str = ""
    checksum_matches: bool = True
    """False if the container's own checksum says otherwise."""


def expand_all(payloads: Iterable[Payload], pool: Executor, ledger: Ledger) -> Iterator[Expanded]:
    """Yield every admitted payload expanded and hashed, in the order given."""
    waiting: deque[tuple[int, Future[Expanded]]] = deque()
    held = 0
    for payload in payloads:
        if not ledger.admit(payload):
            if ledger.is_full:
                break
            continue
        while waiting and (
            held + payload.cost > ledger.limits.in_flight_bytes or len(waiting) >= _IN_FLIGHT
        ):
            cost, future = waiting.popleft()
            held -= cost
            yield future.result()
        held += payload.cost
        waiting.append((payload.cost, pool.submit(_expand, payload, ledger.limits)))
    while waiting:
        yield waiting.popleft()[1].result()


def _expand(payload: Payload, limits: DeviceLimits) -> Expanded:
    try:
        content = _content(payload, limits)
    except InvalidInput as exc:
        return Expanded(payload, None, None, exc.message)
    if payload.kind is not ImageKind.BUNDLE:
        return Expanded(payload, content, Digest.of(content))
    found = hashlib.md5(content, usedforsecurity=False).digest()[:8]
    matches = int.from_bytes(found, "little") == payload.checksum
    return Expanded(payload, content, None, checksum_matches=matches)


def _content(payload: Payload, limits: DeviceLimits) -> memoryview:
    stored = payload.place.data
    if not payload.is_compressed:
        return stored
    if payload.compression is Compression.ZSTD:
        most = limits.undeclared_bytes if payload.size is None else limits.image_bytes
        return memoryview(expand_zstd(stored, payload.size, most=most))
    expand = expand_lz4 if payload.compression is Compression.LZ4 else expand_zlib
    return memoryview(expand(stored, payload.size or 0))  # their containers always say the size
