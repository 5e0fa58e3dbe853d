"""Fuzzes the whole scan with AMD files: bundles of all versions, code objects, metadata."""

from __future__ import annotations

from tests.fuzz.engine import main
from tests.fuzz.scanning import scan_bounded
from tests.unit.scanner.device.builders import ccob, hip_bundle, host, hsaco

_BUNDLE = hip_bundle(
    ("gfx90a", hsaco(kernels=("a", "b"))), ("gfx942", hsaco(0x4C, target="gfx942"))
)
SEEDS = (
    host(_BUNDLE, section=".hip_fatbin"),
    host(ccob(_BUNDLE, version=2), section=".hip_fatbin"),
    _BUNDLE,
    *(ccob(_BUNDLE, version=v, method=m) for v in (1, 2, 3) for m in ("zlib", "zstd")),
    hsaco(kernels=("a", "b")),
)


def scan_amd(data: bytes) -> None:
    """Scan one mutated file."""
    scan_bounded(data)


if __name__ == "__main__":
    main(scan_amd, SEEDS)
