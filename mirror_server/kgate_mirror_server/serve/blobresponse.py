"""Sends a stored file: whole by the server's own means, in parts by chunks, small ones from memory.

Answers conditional requests and ranges (RFC 9110 sections 13 and 14) and looks at every blob
before it is sent (`blobguard`). Which file a client may have is decided elsewhere.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kgate_core.errors import IntegrityError, NotFound, UpstreamError
from kgate_mirror_server.serve.blobguard import Streamed
from kgate_mirror_server.serve.ranges import MAX_RANGES, Span, Unsatisfiable, parse_ranges
from kgate_mirror_server.serve.settings import SendFile
from kgate_mirror_server.serve.wire import (
    FILE_RANGE,
    FIXED,
    PATHSEND,
    Answer,
    Header,
    error,
    matches,
)

if TYPE_CHECKING:
    from kgate_core.digest import Digest
    from kgate_mirror_server.ports import ServedFile
    from kgate_mirror_server.serve.blobguard import BlobGuard
    from kgate_mirror_server.serve.wire import Request, Send

CHUNK: Final = 1024 * 1024  # bytes per read and per message to the server
STREAMED: Final = 8 * 1024 * 1024  # bytes asked of an object store at once
MAX_SMALL: Final = 64 * 1024  # bytes; files up to this are kept in memory
SMALL_CACHE: Final = 64 * 1024 * 1024  # bytes of small files kept
_TYPE: Final = (b"content-type", b"application/octet-stream")
_RANGES: Final = (b"accept-ranges", b"bytes")
_NOSNIFF: Final = (b"x-content-type-options", b"nosniff")
# Revocation must be felt: caches may keep a file but have to ask whether it is still served.
_CACHE: Final = (b"cache-control", b"no-cache")


class SmallBlobs:
    """The bytes of small blobs by digest, least recently used out first."""

    def __init__(self, limit: int = SMALL_CACHE) -> None:
        self._limit = limit
        self._held = 0
        self._blobs: OrderedDict[Digest, bytes] = OrderedDict()

    def get(self, digest: Digest) -> bytes | None:
        """Return a blob's bytes if they are held."""
        data = self._blobs.get(digest)
        if data is not None:
            self._blobs.move_to_end(digest)
        return data

    def keep(self, digest: Digest, data: bytes) -> None:
        """Hold checked bytes."""
        if digest in self._blobs or len(data) > self._limit:
            return
        self._blobs[digest] = data
        self._held += len(data)
        while self._held > self._limit:
            _, dropped = self._blobs.popitem(last=False)
            self._held -= len(dropped)


@dataclass(frozen=True, slots=True)
class BlobSender:
    """Sends files of one store in one way."""

    guard: BlobGuard
    small: SmallBlobs
    how: SendFile
    max_ranges: int = MAX_RANGES

    async def send(
        self, request: Request, send: Send, file: ServedFile, headers: tuple[Header, ...]
    ) -> int:
        """Answer a GET or HEAD for a file; returns the status that was sent."""
        etag = f'"{file.digest.hex if file.lfs else file.oid}"'
        common = (*headers, (b"etag", etag.encode("ascii")), _RANGES, _CACHE, _NOSNIFF)
        if matches(request.header(b"if-none-match"), etag):
            return await _send(Answer(304, headers=common), request, send)
        if request.head:
            length = (b"content-length", b"%d" % file.size)
            request.scope[FIXED] = True
            await _start(send, 200, (_TYPE, length, *common))
            await send({"type": "http.response.body", "body": b""})
            return 200
        try:
            data, path = await self._fetch(file)
        except UpstreamError:
            return await _send(
                error(503, "the store of this mirror does not answer now"), request, send
            )
        except (IntegrityError, NotFound):
            # Not a 404: clients remember those. The variant leaves the next snapshot.
            return await _send(
                error(503, "this file is damaged on the mirror and is not served"), request, send
            )
        if self.how is SendFile.XACCEL and isinstance(path, Path):
            place = f"/_kgate_blobs/{file.digest.hex[:2]}/{file.digest.hex}".encode("ascii")
            await _start(send, 200, (_TYPE, (b"x-accel-redirect", place), *common))
            await send({"type": "http.response.body", "body": b""})
            return 200
        asked = request.header(b"range")
        if (condition := request.header(b"if-range")) is not None and condition != etag:
            asked = None
        spans = parse_ranges(asked, file.size, self.max_ranges)
        if spans is Unsatisfiable:
            whole = (b"content-range", b"bytes */%d" % file.size)
            answer = error(416, f"the file has {file.size} bytes", whole, *headers)
            return await _send(answer, request, send)
        if isinstance(spans, tuple):
            direct = self.how is SendFile.PATHSEND and request.offers(FILE_RANGE)
            await _send_parts(send, data, path, file.size, spans, common, direct=direct)
            return 206
        await self._send_whole(request, send, data, path, file.size, common)
        return 200

    async def _fetch(self, file: ServedFile) -> tuple[bytes | None, Path | Streamed | None]:
        """Return the bytes of a small file, or where those of a checked large one are."""
        if file.size <= MAX_SMALL:
            data = self.small.get(file.digest)
            if data is None:
                data = await asyncio.to_thread(self._read_small, file)
                self.small.keep(file.digest, data)
            return data, None
        if (path := self.guard.known(file.digest, file.size)) is not None:
            return None, path
        return None, await asyncio.to_thread(self.guard.check_large, file.digest, file.size)

    def _read_small(self, file: ServedFile) -> bytes:
        data = self.guard.check(file.digest, file.size).read_bytes()
        if type(file.digest).of(data) != file.digest:
            raise IntegrityError(f"the blob {file.digest} changed while it was read")
        return data

    async def _send_whole(
        self,
        request: Request,
        send: Send,
        data: bytes | None,
        path: Path | Streamed | None,
        size: int,
        headers: tuple[Header, ...],
    ) -> None:
        await _start(send, 200, (_TYPE, (b"content-length", b"%d" % size), *headers))
        if path is None:
            request.scope[FIXED] = True
            await send({"type": "http.response.body", "body": data or b""})
        elif isinstance(path, Path) and self.how is SendFile.PATHSEND and request.offers(PATHSEND):
            await send({"type": PATHSEND, "path": str(path)})
        else:
            await _send_spans(send, path, [(b"", Span(0, size))])
            await send({"type": "http.response.body", "body": b""})


async def _send_parts(
    send: Send,
    data: bytes | None,
    path: Path | Streamed | None,
    size: int,
    spans: tuple[Span, ...],
    headers: tuple[Header, ...],
    *,
    direct: bool,
) -> None:
    if len(spans) == 1:
        kind: tuple[Header, ...] = (
            _TYPE,
            (b"content-range", b"bytes %d-%d/%d" % (spans[0].start, spans[0].end - 1, size)),
        )
        pieces, tail = [(b"", spans[0])], b""
    else:
        # RFC 9110 section 14.6: several ranges travel as parts of one multipart body.
        boundary = secrets.token_hex(16).encode("ascii")
        kind = ((b"content-type", b"multipart/byteranges; boundary=" + boundary),)
        pieces = [(_part_head(boundary, span, size), span) for span in spans]
        tail = b"\r\n--" + boundary + b"--\r\n"
    length = sum(len(head) + span.size for head, span in pieces) + len(tail)
    await _start(send, 206, (*kind, (b"content-length", b"%d" % length), *headers))
    if isinstance(path, Path) and direct and len(spans) == 1:
        await send(
            {"type": FILE_RANGE, "path": str(path), "start": spans[0].start, "end": spans[0].end}
        )
        return
    if path is None:
        whole = data or b""
        body = b"".join(head + whole[span.start : span.end] for head, span in pieces)
        await send({"type": "http.response.body", "body": body + tail})
        return
    await _send_spans(send, path, pieces)
    await send({"type": "http.response.body", "body": tail})


def _part_head(boundary: bytes, span: Span, size: int) -> bytes:
    return b"\r\n--%b\r\ncontent-type: %b\r\ncontent-range: bytes %d-%d/%d\r\n\r\n" % (
        boundary,
        _TYPE[1],
        span.start,
        span.end - 1,
        size,
    )


async def _send_spans(send: Send, path: Path | Streamed, pieces: list[tuple[bytes, Span]]) -> None:
    if isinstance(path, Streamed):
        for head, span in pieces:
            if head:
                await send({"type": "http.response.body", "body": head, "more_body": True})
            for start in range(span.start, span.end, STREAMED):
                size = min(STREAMED, span.end - start)
                chunk = await asyncio.to_thread(path.read, start, size)
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        for head, span in pieces:
            if head:
                await send({"type": "http.response.body", "body": head, "more_body": True})
            position = span.start
            while position < span.end:
                chunk = await _read(descriptor, position, min(CHUNK, span.end - position))
                if not chunk:
                    raise IntegrityError(f"{path.name} became shorter while it was sent")
                position += len(chunk)
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
    finally:
        os.close(descriptor)


async def _read(descriptor: int, position: int, size: int) -> bytes:
    # What the page cache holds comes without a detour; what must come from the disk may take
    # long, and would hold up every other client.
    buffer = bytearray(size)
    try:
        got = os.preadv(descriptor, [buffer], position, os.RWF_NOWAIT)
    except OSError:  # EAGAIN: not in the page cache; or a file system without RWF_NOWAIT
        return await asyncio.to_thread(os.pread, descriptor, size, position)
    return bytes(memoryview(buffer)[:got])


async def _start(send: Send, status: int, headers: tuple[Header, ...]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})


async def _send(answer: Answer, request: Request, send: Send) -> int:
    await answer.send(request, send)
    return answer.status
