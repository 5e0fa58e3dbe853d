"""The work of the child process, done here without one."""

from __future__ import annotations

import json
import os
import socket
import struct
from typing import TYPE_CHECKING, Any

import pytest

from kgate_scanner import worker
from kgate_scanner.inspection import inspect_file, preload
from kgate_scanner.isolate import Inspected, open_descriptor
from tests.repos import kernel_module
from tests.scankit import build_library
from tests.unit.scanner.device import builders

if TYPE_CHECKING:
    from collections.abc import Iterator

FATBIN = builders.fatbin(builders.entry(builders.ptx(), kind=1))
KINDS = {
    "lib.so": (build_library(), {"kind", "host"}),
    "cuda.so": (builders.host(FATBIN), {"kind", "host", "device"}),
    "a.fatbin": (FATBIN, {"kind", "device"}),
    "a.py": (b"import os\n", {"kind", "python"}),
    "metadata.json": (b'{"name": "a", "backend": {"type": "cpu"}}', {"kind", "metadata"}),
    "module.ko": (kernel_module(), {"kind"}),
    "notes.txt": (b"hello\n", {"kind"}),
    "table.bin": (bytes(range(256)), {"kind"}),
    "empty": (b"", {"kind"}),
}


@pytest.mark.parametrize("path", KINDS)
def test_each_kind_of_file_gets_the_facts_of_its_parsers(path: str) -> None:
    data, facts = KINDS[path]
    found = inspect_file(memoryview(data), path, system="linux")
    assert set(found.facts) == facts
    assert found.complete


def test_device_code_put_into_a_data_file_is_found() -> None:
    data = bytes(range(256)) * 20 + FATBIN
    found = inspect_file(memoryview(data), "table.bin", system="linux")
    assert "device" in found.facts or found.findings


def test_a_library_that_cannot_be_read_leaves_the_scan_incomplete() -> None:
    found = inspect_file(memoryview(build_library()[:100]), "a.so", system="linux")
    assert not found.complete


def test_everything_can_be_loaded_beforehand() -> None:
    preload(libraries=True)
    preload(libraries=False)


@pytest.fixture
def channel() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def answered(ours: socket.socket) -> dict[str, Any]:
    (length,) = struct.unpack(">Q", ours.recv(8))
    return dict(json.loads(ours.recv(length)))


def test_a_request_is_a_descriptor_and_a_path(
    channel: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = channel
    descriptor = open_descriptor(memoryview(b"x = 1\n"))
    body = json.dumps({"path": "a.py", "system": None}).encode()
    socket.send_fds(ours, [struct.pack(">Q", len(body))], [descriptor])
    os.close(descriptor)
    ours.sendall(body)
    received = worker._request(theirs)
    assert received is not None
    request, given = received
    worker._answer(theirs, worker._inspected(request, given))
    answer = answered(ours)
    assert (answer["complete"], answer["facts"]["kind"]) == (True, "python")
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(given)


def test_a_closed_channel_ends_the_work(channel: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = channel
    ours.close()
    assert worker._request(theirs) is None


def test_half_a_request_ends_the_work(channel: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = channel
    descriptor = open_descriptor(memoryview(b""))
    socket.send_fds(ours, [struct.pack(">Q", 100)], [descriptor])
    os.close(descriptor)
    ours.close()
    assert worker._request(theirs) is None


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RecursionError, "ran into its limits (RecursionError)"),
        (MemoryError, "ran into its limits (MemoryError)"),
        (ValueError, "failed (ValueError)"),
    ],
)
def test_an_error_of_any_parser_is_a_finding(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception], said: str
) -> None:
    def failing(data: memoryview, path: str, *, system: str | None) -> Inspected:
        raise error(path, system, data)

    monkeypatch.setattr(worker, "inspect_file", failing)
    descriptor = open_descriptor(memoryview(b"x"))
    document = worker._inspected({"path": "a", "system": None}, descriptor)
    assert document["complete"] is False
    assert said in document["findings"][0]["seen"]


def test_an_empty_file_is_read_without_a_mapping() -> None:
    document = worker._inspected({"path": "a", "system": None}, open_descriptor(memoryview(b"")))
    assert document["facts"] == {"kind": "empty"}


def test_what_cannot_be_written_is_answered_as_nonsense(
    channel: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = channel
    worker._answer(theirs, {"facts": 1.5})
    assert answered(ours) == {}


def test_odd_names_and_numbers_are_made_writable() -> None:
    facts = {"a\ud800": 1 << 60, "\U0001f600": {"b"}, 3: (None, True, 1.5), "c": "x\udfff"}
    assert worker.clean(facts) == {
        "a\\ud800": hex(1 << 60),
        "\\U0001f600": ["b"],
        "3": [None, True, "1.5"],
        "c": "x\\udfff",
    }
