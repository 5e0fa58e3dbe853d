"""The running account of one file's scan: findings, images, and what may still be spent.

Everything a reader wants to say goes through here, so that limits hold and equal bytes give equal
scans. It reads nothing itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kgate_scanner.device import rules
from kgate_scanner.device.images import DeviceScan

if TYPE_CHECKING:
    from kgate_core.evidence import Finding
    from kgate_scanner.device.extent import Extent, Payload
    from kgate_scanner.device.images import DeviceImage, DeviceKernel
    from kgate_scanner.device.limits import DeviceLimits
    from kgate_scanner.rules import Rule

_INCOMPLETE = frozenset(
    {
        rules.MALFORMED.id,
        rules.EXPANSION.id,
        rules.LIMIT.id,
        rules.UNKNOWN.id,
        rules.CODE_DAMAGED.id,
    }
)


class Ledger:
    """Collects what is found in one file and enforces its limits."""

    def __init__(self, path: str, limits: DeviceLimits, file_bytes: int) -> None:
        self.path = path
        self.limits = limits
        self.containers: dict[int, str] = {}
        """File offset -> format of the containers that lie in the file itself."""
        self._container_count = 0
        self._images: list[DeviceImage] = []
        self._findings: dict[tuple[str, str, int | None], Finding] = {}
        self._dropped = 0
        self._unexplained = 0
        self._complete = True
        self._admitted = 0
        self._retries_left = limits.retries
        self._candidates_left = limits.candidates
        self._expansion_left = limits.expansion_budget(file_bytes)
        self._kernels_left = limits.kernels
        self._names_left = limits.kernel_name_bytes

    @property
    def images(self) -> tuple[DeviceImage, ...]:
        """The images recorded so far."""
        return tuple(self._images)

    @property
    def is_full(self) -> bool:
        """True if no further image will be admitted."""
        return self._admitted >= self.limits.images

    def report(self, rule: Rule, seen: str, offset: int | None = None) -> None:
        """Record one finding; beyond the limit it is only counted."""
        self._complete = self._complete and rule.id not in _INCOMPLETE
        key = (rule.id, seen, offset)
        if key in self._findings:
            return
        if len(self._findings) < self.limits.findings:
            self._findings[key] = rule.finding(self.path, seen, offset=offset)
        else:
            self._dropped += 1

    def open_container(self, place: Extent, position: int, container_format: str) -> int | None:
        """Count one container and return its number, None if the file has too many."""
        if self._container_count >= self.limits.containers:
            self.report(rules.LIMIT, f"more than {self.limits.containers} containers")
            return None
        if place.mapped:
            self.containers[place.at(position)] = container_format
        self._container_count += 1
        return self._container_count - 1

    def may_retry(self, offset: int) -> bool:
        """Say whether to look for a further container after a damaged one."""
        self._retries_left -= 1
        if self._retries_left < 0:
            seen = f"more than {self.limits.retries} damaged containers; the rest was not read"
            self.report(rules.LIMIT, seen, offset)
        return self._retries_left >= 0

    def may_probe(self, offset: int) -> bool:
        """Say whether to look closer at one more place that resembles device code."""
        self._candidates_left -= 1
        if self._candidates_left < 0:
            seen = f"more than {self.limits.candidates} places that resemble device code"
            self.report(rules.LIMIT, seen, offset)
        return self._candidates_left >= 0

    def unexplained(self, place: Extent, start: int, count: int) -> None:
        """Record bytes of a device section that belong to nothing."""
        if count:
            self._unexplained += count
            where = f"section {place.section}" if place.section else "the container"
            seen = f"{count} bytes of {where} belong to no image"
            self.report(rules.UNEXPLAINED, seen, place.at(start))

    def admit(self, payload: Payload) -> bool:
        """Say whether this image may be read; its declared size is charged before any expansion."""
        offset = payload.place.base
        size = self.limits.undeclared_bytes if payload.size is None else payload.size
        size = size if payload.is_compressed else len(payload.place.data)
        if self.is_full:
            self.report(rules.LIMIT, f"more than {self.limits.images} images")
            return False
        if max(size, len(payload.place.data)) > self.limits.image_bytes:
            seen = f"an image of {size} bytes is larger than the {self.limits.image_bytes} allowed"
            self.report(rules.LIMIT, seen, offset)
            return False
        if payload.is_compressed and size > self._expansion_left:
            seen = f"{size} more decompressed bytes are too many for this file"
            self.report(rules.LIMIT, seen, offset)
            return False
        self._admitted += 1
        self._expansion_left -= size if payload.is_compressed else 0
        return True

    def admit_kernels(self, kernels: tuple[DeviceKernel, ...]) -> tuple[DeviceKernel, ...]:
        """Return the kernels that may still be listed."""
        names = sum(len(kernel.name) for kernel in kernels)
        if len(kernels) > self._kernels_left or names > self._names_left:
            self.report(rules.LIMIT, f"more than {self.limits.kernels} kernels or overlong names")
            return ()
        self._kernels_left -= len(kernels)
        self._names_left -= names
        return kernels

    def record(self, image: DeviceImage) -> None:
        """Keep one image."""
        self._images.append(image)

    def close(self) -> DeviceScan:
        """Return the scan; findings are ordered by place, then by rule."""
        if self._dropped:
            seen = f"{self._dropped} more findings are not listed"
            limit = rules.LIMIT.finding(self.path, seen)
            self._findings[rules.LIMIT.id, seen, None] = limit
        found = sorted(
            self._findings.values(),
            key=lambda finding: (finding.offset or 0, finding.rule, finding.seen),
        )
        return DeviceScan(
            images=tuple(self._images),
            findings=tuple(found),
            unexplained_bytes=self._unexplained,
            containers=self._container_count,
            complete=self._complete and not self._dropped,
        )
