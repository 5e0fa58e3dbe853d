"""Short ways to scan built bytes and to look at the outcome."""

from __future__ import annotations

from kgate_scanner.device import DeviceLimits, DeviceScan, scan_device


def scan(data: bytes, limits: DeviceLimits | None = None) -> DeviceScan:
    return scan_device(memoryview(data), "lib.so", limits=limits or DeviceLimits())


def rules_of(found: DeviceScan) -> list[str]:
    return [finding.rule for finding in found.findings]


def said(found: DeviceScan) -> str:
    return "; ".join(finding.seen for finding in found.findings)
