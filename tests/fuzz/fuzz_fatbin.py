"""Fuzzes the whole scan with CUDA files: wrappers, containers, cubins, PTX."""

from __future__ import annotations

from tests.fuzz.engine import main
from tests.fuzz.scanning import scan_bounded
from tests.unit.scanner.device.builders import Kernel, cubin, entry, fatbin, host, ptx

_KERNELS = (Kernel("a"), Kernel("b"))
_ENTRIES = (
    entry(cubin(90, _KERNELS, tool_args="-v"), compression="lz4", header_size=72),
    entry(
        cubin(100, _KERNELS, abi=8), arch=100, compression="zstd", options=b"\0\2", flags=0x1000011
    ),
    entry(ptx(), kind=1, options=b"-O1 ", source=b"x.cu\0"),
)
SEEDS = (
    host(fatbin(*_ENTRIES), fatbin(_ENTRIES[0])),
    fatbin(*_ENTRIES),
    cubin(90, _KERNELS, tool_args="-v"),
    ptx(),
)


def scan_cuda(data: bytes) -> None:
    """Scan one mutated file."""
    scan_bounded(data)


if __name__ == "__main__":
    main(scan_cuda, SEEDS)
