"""Turns expanded payloads into images: asks the reader for that kind of code and compares.

The container's claim and the code's own words must agree about the architecture. Containers inside
containers (compressed bundles, device archives) are walked here, two levels deep at most.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from kgate_core.errors import InvalidInput
from kgate_scanner.device import rules
from kgate_scanner.device.bundle import read_members, walk_members
from kgate_scanner.device.code import CodeObject
from kgate_scanner.device.cubin import read_cubin
from kgate_scanner.device.extent import Extent, Payload, nonzero_bytes
from kgate_scanner.device.hsaco import read_hsaco
from kgate_scanner.device.images import DeviceImage, ImageKind
from kgate_scanner.device.metallib import read_metallib
from kgate_scanner.device.pages import Pages
from kgate_scanner.device.pipeline import Expanded, expand_all
from kgate_scanner.device.ptx import read_ptx
from kgate_scanner.device.sycl import (
    content_kind,
    read_intermediate,
    read_zebin,
    walk_archive,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Executor

    from kgate_scanner.device.ledger import Ledger

_READERS: Final[dict[ImageKind, Callable[[memoryview], CodeObject]]] = {
    ImageKind.CUBIN: read_cubin,
    ImageKind.PTX: read_ptx,
    ImageKind.HSACO: read_hsaco,
    ImageKind.SPIRV: read_intermediate,
    ImageKind.ZEBIN: read_zebin,
    ImageKind.METALLIB: read_metallib,
}
_NUMBER: Final = re.compile(r"[0-9]+")
_DAMAGE_LISTED: Final = 3


class Reader:
    """Reads payloads into a ledger; one for each file."""

    def __init__(self, data: memoryview, pool: Executor, ledger: Ledger) -> None:
        self._pool = pool
        self._ledger = ledger
        self._pages = Pages(data)

    def read(self, payloads: Iterable[Payload]) -> None:
        """Record the images of all payloads and of the containers among them."""
        for item in expand_all(payloads, self._pool, self._ledger):
            if item.content is None:
                self._ledger.report(rules.EXPANSION, item.error, item.payload.place.base)
            if item.payload.kind is ImageKind.BUNDLE:
                self.read(self._members(item))
            else:
                self._record(item)
            place = item.payload.place
            if place.mapped:
                self._pages.release(place.base, len(place.data))

    def _record(self, item: Expanded) -> None:
        payload, content = item.payload, item.content
        kind, code = payload.kind, CodeObject()
        if content is not None:
            if kind is ImageKind.UNKNOWN and payload.container_format == "sycl":
                kind = content_kind(content)
            if kind in _READERS:
                code = _READERS[kind](content)
            elif kind is ImageKind.UNKNOWN:
                self._ledger.report(rules.UNKNOWN, "an image of unknown kind", payload.place.base)
        self._report_code(payload, kind, code)
        self._ledger.record(
            DeviceImage(
                kind=kind,
                target=payload.target or code.target,
                container_format=payload.container_format,
                section=payload.place.section,
                container=payload.container,
                entry=payload.entry,
                offset=payload.place.base,
                stored_size=payload.parent_size or len(payload.place.data),
                size=len(content) if content is not None else 0,
                compression=payload.compression,
                digest=item.digest,
                toolkit=code.toolkit,
                tools=code.tools,
                debug=payload.debug or code.debug,
                lineinfo=payload.lineinfo or code.source,
                relocatable=payload.relocatable or code.relocatable,
                options=payload.options,
                kernels=self._ledger.admit_kernels(code.kernels),
            )
        )
        if kind is ImageKind.DEVICE_ARCHIVE and content is not None:
            self.read(walk_archive(payload, content, self._ledger))

    def _members(self, item: Expanded) -> Iterator[Payload]:
        """Walk the bundle that came out of a compressed one."""
        payload, content, ledger = item.payload, item.content, self._ledger
        if content is None:
            return
        if not item.checksum_matches:
            seen = "the contents of a compressed bundle do not match its checksum"
            ledger.report(rules.BUNDLE_HASH, seen, payload.place.base)
        try:
            members, end = read_members(content)
        except InvalidInput as exc:
            ledger.report(rules.MALFORMED, exc.message, payload.place.base)
            return
        inner = Extent(content, payload.place.section, payload.place.base, mapped=False)
        ledger.unexplained(inner, end, nonzero_bytes(content[end:]))
        whole = Payload(
            kind=ImageKind.BUNDLE,
            target="",
            container_format=payload.container_format,
            container=payload.container,
            entry=0,
            place=inner,
            compression=payload.compression,
            parent_size=len(payload.place.data),
        )
        yield from walk_members(whole, members, ledger)

    def _report_code(self, payload: Payload, kind: ImageKind, code: CodeObject) -> None:
        offset, name = payload.place.base, f"{kind} {payload.target}".strip()
        if code.damage:
            listed = "; ".join(code.damage[:_DAMAGE_LISTED])
            more = len(code.damage) - _DAMAGE_LISTED
            seen = f"{name}: {listed}" + (f"; and {more} more" if more > 0 else "")
            self._ledger.report(rules.CODE_DAMAGED, seen, offset)
        if not _agree(kind, payload.target, code.target):
            seen = f"the container says {payload.target}, the code says {code.target}"
            self._ledger.report(rules.MISMATCH, seen, offset)


def _agree(kind: ImageKind, claimed: str, found: str) -> bool:
    """Compare two targets; an empty one claims nothing.

    Cubins of ABI 8 do not always carry the suffix of their architecture (CUDA 13 leaves it out),
    so a suffix counts only if the code has one.
    """
    if not claimed or not found or claimed == found:
        return True
    if kind is not ImageKind.CUBIN:
        return False
    return _NUMBER.findall(claimed) == _NUMBER.findall(found) and found[-1:].isdigit()
