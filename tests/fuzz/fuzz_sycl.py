"""Fuzzes the whole scan with SYCL files: frames, archives, SPIR-V."""

from __future__ import annotations

from tests.fuzz.engine import main
from tests.fuzz.scanning import scan_bounded
from tests.unit.scanner.device.builders import archive, spirv, sycl_host, zebin

_AHEAD = archive(("pad_0", bytes(8)), ("64.12.60.7", zebin("a")), ("generic_ir", spirv("a")))
SEEDS = (
    sycl_host("spir64", spirv("a", "b"), spirv("c")),
    sycl_host("spir64", spirv("a", "b"), spirv("c"), listed=False),
    sycl_host("spir64_gen", _AHEAD, packed=False),
    sycl_host("spir64_gen", _AHEAD),
    spirv("a", "b"),
    zebin("a"),
)


def scan_sycl(data: bytes) -> None:
    """Scan one mutated file."""
    scan_bounded(data)


if __name__ == "__main__":
    main(scan_sycl, SEEDS)
