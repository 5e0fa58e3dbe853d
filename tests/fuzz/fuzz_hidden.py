"""Fuzzes the search for hidden device code: all kinds, one after the other, in one file."""

from __future__ import annotations

from tests.fuzz.engine import main
from tests.fuzz.scanning import scan_bounded
from tests.unit.scanner.device.builders import (
    ElfFile,
    Sec,
    ccob,
    cubin,
    entry,
    fatbin,
    hip_bundle,
    hsaco,
    ptx,
    spirv,
    zebin,
)

_PARTS = (
    fatbin(entry(cubin(90))),
    ccob(hip_bundle(("gfx90a", hsaco()))),
    cubin(90),
    hsaco(),
    zebin("a"),
    ptx(),
    spirv("a", "b"),
    b"MTLB" + bytes(12) + (256).to_bytes(8, "little") + bytes(232),
)
SEEDS = (
    ElfFile(sections=[Sec(".rodata", b"\0padding".join(_PARTS))]).build(),
    b"text " + b"\0".join(_PARTS[3:]),
)


def scan_hidden(data: bytes) -> None:
    """Scan one mutated file."""
    scan_bounded(data)


if __name__ == "__main__":
    main(scan_hidden, SEEDS)
