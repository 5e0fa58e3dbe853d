"""The scan as fuzzers call it: small limits, and what must hold for every input."""

from __future__ import annotations

from typing import Final

from kgate_core import strictjson
from kgate_scanner.device import DeviceLimits, scan_device

LIMITS: Final = DeviceLimits(
    image_bytes=8 << 20,
    expanded_bytes=32 << 20,
    undeclared_bytes=1 << 20,
    images=256,
    containers=256,
    findings=64,
)


def scan_bounded(data: bytes) -> None:
    """Scan, and check what a consumer relies on."""
    found = scan_device(memoryview(data), "lib.so", limits=LIMITS)
    assert len(found.images) <= LIMITS.images
    assert len(found.findings) <= LIMITS.findings + 1
    assert 0 <= found.unexplained_bytes <= len(data) + LIMITS.expanded_bytes
    for image in found.images:
        assert 0 <= image.offset <= len(data)
        assert image.digest is not None or not found.complete
    for finding in found.findings:
        assert finding.offset is None or 0 <= finding.offset <= len(data)
        assert len(finding.seen) < 100_000
    strictjson.dumps(found.to_json())
