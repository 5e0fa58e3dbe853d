"""The child process of `isolate`: receives descriptors, inspects the files, answers in JSON.

It limits and locks itself before it reads the first request. It trusts nobody and is trusted by
nobody: the parent checks every answer.
"""

from __future__ import annotations

import contextlib
import gc
import mmap
import os
import socket
import struct
from typing import TYPE_CHECKING, Any, Final

from kgate_core import strictjson
from kgate_core.errors import InvalidInput
from kgate_scanner import sandbox
from kgate_scanner.inspection import inspect_file, preload
from kgate_scanner.isolate import Inspected, gave_up

if TYPE_CHECKING:
    from collections.abc import Iterator

_LENGTH: Final = struct.Struct(">Q")
_REQUEST_MAX: Final = 64 * 1024  # bytes; a path and two words
_MAX_INT: Final = 2**53 - 1
_MAX_BMP: Final = 0xFFFF


def main(descriptor: int, memory_bytes: int, cpu_seconds: int, libraries: int) -> None:
    """Answer requests on the socket `descriptor` until the parent closes it.

    Without `libraries` the parser of host code is not loaded, and no library may be asked about.
    """
    sandbox.limit(memory_bytes=memory_bytes, cpu_seconds=cpu_seconds)
    preload(libraries=bool(libraries))
    gc.freeze()  # collections between files need not look at what was imported
    channel = socket.socket(fileno=descriptor)
    layers = sandbox.enter()
    _answer(channel, {"layers": sorted(layers)})
    while (received := _request(channel)) is not None:
        request, given = received
        _answer(channel, _inspected(request, given))


def _request(channel: socket.socket) -> tuple[dict[str, Any], int] | None:
    head, descriptors, _, _ = socket.recv_fds(channel, _LENGTH.size, 1)
    if len(head) != _LENGTH.size or len(descriptors) != 1:
        return None
    (length,) = _LENGTH.unpack(head)
    body = bytearray()
    while len(body) < min(length, _REQUEST_MAX):
        chunk = channel.recv(length - len(body))
        if not chunk:
            return None
        body += chunk
    return strictjson.loads(bytes(body), what="request"), descriptors[0]


def _inspected(request: dict[str, Any], descriptor: int) -> dict[str, Any]:
    path = request["path"]
    try:
        with _mapped(descriptor) as data:
            result = inspect_file(data, path, system=request["system"])
        return _document(result)
    except (RecursionError, MemoryError) as exc:
        result = gave_up(path, f"the parser ran into its limits ({type(exc).__name__})")
    except Exception as exc:  # noqa: BLE001  # any parser error is a finding about the file
        result = gave_up(path, f"the parser failed ({type(exc).__name__})")
    finally:
        os.close(descriptor)
        gc.collect()
    return _document(result)


@contextlib.contextmanager
def _mapped(descriptor: int) -> Iterator[memoryview]:
    if os.fstat(descriptor).st_size == 0:
        yield memoryview(b"")
        return
    mapping = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
    try:
        with memoryview(mapping) as data:
            yield data
    finally:
        # A parser's exception may still hold a slice; the collector frees the mapping then.
        with contextlib.suppress(BufferError):
            mapping.close()


def _document(result: Inspected) -> dict[str, Any]:
    return {
        "facts": clean(result.facts),
        "findings": [clean(finding.to_json()) for finding in result.findings],
        "complete": result.complete,
    }


def _answer(channel: socket.socket, document: dict[str, Any]) -> None:
    try:
        data = strictjson.dumps(document)
    except InvalidInput:
        data = b"{}"  # refused by the parent as nonsense, which is what it is
    channel.sendall(_LENGTH.pack(len(data)))
    channel.sendall(data)


def clean(value: Any) -> Any:  # noqa: ANN401  # JSON has no static shape
    """Return facts as they can be written canonically, whatever names and numbers a file holds."""
    if type(value) is str and value.isascii():
        return value  # nearly everything in a large answer
    match value:
        case bool() | None:
            return value
        case int():
            return value if abs(value) <= _MAX_INT else hex(value)
        case str():
            return value.encode("utf-8", "backslashreplace").decode("utf-8")
        case dict():
            return {_key(key): clean(item) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [clean(item) for item in value]
        case _:
            return str(value)


def _key(key: object) -> str:
    text = str(clean(str(key)))
    if text.isascii() or ord(max(text)) <= _MAX_BMP:
        return text
    return text.encode("ascii", "backslashreplace").decode("ascii")
