"""How much one file may cost to read; every number has its unit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MIB: Final = 1024**2
GIB: Final = 1024**3


@dataclass(frozen=True, slots=True)
class DeviceLimits:
    """What a reader may spend on one file; a limit that is met becomes a finding.

    The defaults are several times what the largest published kernel libraries need.
    """

    image_bytes: int = 1 * GIB
    """Bytes of one image after decompression."""
    expanded_bytes: int = 8 * GIB
    """Bytes that decompression may write for one file."""
    expansion_factor: int = 256
    """Decompressed bytes per byte of file; counts beyond `expansion_floor_bytes`."""
    expansion_floor_bytes: int = 256 * MIB
    """Decompressed bytes that any file may have, however small it is."""
    undeclared_bytes: int = 64 * MIB
    """Decompressed bytes of an image whose container declares no size."""
    images: int = 32_768
    """Images of one file."""
    kernels: int = 500_000
    """Kernels of one file."""
    kernel_name_bytes: int = 128 * MIB
    """Bytes of all kernel names of one file."""
    containers: int = 65_536
    """Containers (fatbins, bundles, archives) of one file."""
    retries: int = 100
    """Damaged containers after which the search for the next one is given up."""
    findings: int = 500
    """Findings of one file; the rest is counted."""
    candidates: int = 4096
    """Places outside known sections that are looked at more closely."""
    in_flight_bytes: int = 48 * MIB
    """Bytes of images that are held in memory at once; one larger image is held alone."""

    def expansion_budget(self, file_bytes: int) -> int:
        """Return how many bytes decompression may write for a file of that size."""
        fair = max(self.expansion_floor_bytes, self.expansion_factor * file_bytes)
        return min(self.expanded_bytes, fair)
