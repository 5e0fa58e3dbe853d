"""Every reader of untrusted files by name: what the short runs, the campaign and the corpus call.

LIEF itself is not among them: it is native code that runs in a child process, where a crash of its
own is a finding (tests/threats/test_t22.py).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from kgate_core.kernel import Variant
from kgate_scanner.cacherecords import read_record
from kgate_scanner.caches import check_caches, find_caches
from kgate_scanner.device.metallib import read_metallib
from kgate_scanner.dynamic import check_views, read_dynamic
from kgate_scanner.elf import Elf
from kgate_scanner.files import identify
from kgate_scanner.hostcopy import host_copy
from kgate_scanner.metadata import check_metadata, read_metadata
from kgate_scanner.python import read_python
from kgate_scanner.strings import read_strings
from kgate_scanner.worker import clean
from tests.fuzz import fuzz_bundle, fuzz_elf, fuzz_fatbin, fuzz_hidden, fuzz_sycl
from tests.scankit import CPU, manifest_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Reader(NamedTuple):
    """One reader: it may refuse or report anything, but neither raise nor hang nor hoard."""

    read: Callable[[bytes], object]
    seeds: Sequence[bytes]


def read_host_views(data: bytes) -> None:
    """Read a library's dynamic section and its strings, and make the copy that LIEF gets."""
    elf = Elf(memoryview(data))
    assert all(isinstance(text, str) for text in check_views(elf, read_dynamic(elf), 5))
    assert len(host_copy(elf)) == len(data)
    read_strings(elf.data, [(0, len(data)), (len(data) // 2, len(data) * 2)])


def read_source(data: bytes) -> None:
    """Read Python source."""
    json.dumps(clean(read_python(memoryview(data), "a.py").facts))


def read_document(data: bytes) -> None:
    """Read `metadata.json` and hold it against a manifest."""
    found = read_metadata(memoryview(data), "metadata.json")
    manifest = manifest_of({"metadata.json": data, "a.py": b""})
    check_metadata(found.facts, manifest, Variant.parse(CPU), {"cuda": {"90"}})
    json.dumps(clean(found.facts))


def read_kind(data: bytes) -> None:
    """Say what a file is."""
    for name in ("a.so", "a.py", "noise"):
        assert identify(memoryview(data), name).kind


def read_cache(data: bytes) -> None:
    """Read the records of a compile cache, and hold one against a code object."""
    image = {"kind": "cubin", "target": "sm_90", "kernels": [{"name": "scale"}]}
    files: dict[str, Any] = {"k/a.cubin": {"kind": "device-code", "device": {"images": [image]}}}
    for name in ("k/a.json", "k/__grp__a.json", "k/a.best_config"):
        if record := read_record(memoryview(data), name):
            files[name] = {"kind": "text", "record": record}
    json.dumps(clean([find_caches(files), [item.to_json() for item in check_caches(files)]]))


def read_metal(data: bytes) -> None:
    """Read a Metal library."""
    for kernel in read_metallib(memoryview(data)).kernels:
        assert len(kernel.name) <= len(data)


_SOURCE: Final = b"""import os, subprocess
from ctypes import CDLL as load
import triton

@triton.jit
def kernel(x, BLOCK: tl.constexpr):
    pass

class A(B, metaclass=C):
    y: int = eval("1")

exec(__import__("base64").b64decode(b"eA=="))
open("/etc/x", "w").write(f"{os.environ['HOME']!r}")
"""
_DOCUMENT: Final = json.dumps(
    {
        "name": "relu",
        "id": "relu_1",
        "version": 1,
        "license": "apache-2.0",
        "backend": {"type": "cuda", "archs": ["9.0", "10.0a"]},
        "python-depends": ["einops"],
        "kernel-depends": [{"repo_id": "a/b", "version": 1}],
        "digest": {"algorithm": "sha256", "files": {"a.py": "0" * 64}},
        "provenance": {"sha": "0" * 40, "dirty": True},
    }
).encode()

_RECORDS: Final = (
    b'{"target": {"backend": "cuda", "arch": 80}, "name": "add", "num_warps": 4, "shared": 0}',
    b'{"child_paths": {"a.cubin": "/x/k/a.cubin", "b": "../b"}}',
    b'{"key": {"fields": {"hardware": "x", "backend": "triton"}}, "config": "{}"}',
)
_METAL: Final = (
    b"MTLB" + bytes(12) + (200).to_bytes(8, "little") + (88).to_bytes(8, "little") + bytes(56)
    + b"\x01\0\0\0\x1b\0\0\0NAME\x02\0a\0TYPE\x01\0\x02ENDT" + bytes(80),
)  # fmt: skip

READERS: Final = {
    "elf": Reader(fuzz_elf.read_everything, fuzz_elf.SEEDS),
    "cuda": Reader(fuzz_fatbin.scan_cuda, fuzz_fatbin.SEEDS),
    "amd": Reader(fuzz_bundle.scan_amd, fuzz_bundle.SEEDS),
    "sycl": Reader(fuzz_sycl.scan_sycl, fuzz_sycl.SEEDS),
    "hidden": Reader(fuzz_hidden.scan_hidden, fuzz_hidden.SEEDS),
    "host": Reader(read_host_views, fuzz_elf.SEEDS),
    "python": Reader(read_source, (_SOURCE,)),
    "metadata": Reader(read_document, (_DOCUMENT,)),
    "cache": Reader(read_cache, _RECORDS),
    "metal": Reader(read_metal, _METAL),
    "kind": Reader(read_kind, (*fuzz_elf.SEEDS, *fuzz_hidden.SEEDS, _SOURCE, _DOCUMENT)),
}
