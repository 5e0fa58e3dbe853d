"""Reads PTX, NVIDIA's textual intermediate code (PTX ISA, "Directives").

Taken out: version, target, the toolkit that wrote it, entry points with their launch bounds, and
source paths in line information. Instructions are not parsed, and nothing is preprocessed.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from kgate_scanner.device.code import CodeObject, list_kernels
from kgate_scanner.device.images import DeviceKernel, Tool

if TYPE_CHECKING:
    from collections.abc import Iterator

_COMMENT: Final = re.compile(rb'("[^"\n]*")|//[^\n]*|/\*[^*]*(?:\*(?!/)[^*]*)*(?:\*/)?')
_LINE_COMMENT: Final = re.compile(rb'[^"\n]*//')
_HEADER_BYTES: Final = 16_384  # .version and .target come first; only comments precede them
_TARGET: Final = re.compile(rb"\.target\s+(sm_[0-9]{1,3}[a-z]?)\s*((?:,\s*[a-z0-9_]+\s*)*)")
_VERSION: Final = re.compile(rb"\.version\s+([0-9]{1,2}\.[0-9]{1,2})")
_RELEASE: Final = re.compile(rb"//[^\n]{0,200}release ([0-9]{1,3}\.[0-9]{1,2}), (V[0-9.]{1,20})")
_BUILD: Final = re.compile(rb"// Compiler Build ID: ([^\n]{1,200})")
_ENTRY: Final = re.compile(rb"\.entry\s+([A-Za-z_$%][A-Za-z0-9_$]*)")
_BOUNDS: Final = re.compile(
    rb"\.(?:maxntid|reqntid)\s+([0-9]{1,4})(?:\s*,\s*([0-9]{1,4}))?"
    rb"(?:\s*,\s*([0-9]{1,4}))?"
)
_FILE: Final = re.compile(rb'\.file\s+[0-9]+\s+"([^"\n]{1,4096})"')
_LINE_REACH: Final = 4096  # bytes before an entry in which a line comment is looked for
_BOUNDS_REACH: Final = 64 * 1024  # bytes from a name to its launch bounds; parameters lie between


def read_ptx(data: memoryview) -> CodeObject:
    """Return what PTX text says of itself; damage is listed, never raised."""
    text = bytes(data).rstrip(b"\0")
    header = text[:_HEADER_BYTES]
    plain = _COMMENT.sub(rb"\1 ", header)
    target, version = _TARGET.search(plain), _VERSION.search(plain)
    damage: list[str] = []
    if version is None:
        damage.append("PTX without .version")
    if target is None:
        damage.append("PTX without .target")
    release, build = _RELEASE.search(header), _BUILD.search(header)
    tools: tuple[Tool, ...] = ()
    if release:
        said = build.group(1).decode("utf-8", "replace").strip() if build else ""
        tools = (Tool("nvvm", release.group(2).decode(), said),)
    source = _FILE.search(text)
    kernels = list_kernels(_kernels(text), damage)
    return CodeObject(
        target=target.group(1).decode().replace("sm_", "compute_") if target else "",
        toolkit=release.group(1).decode() if release else "",
        tools=tools,
        debug=target is not None and b"debug" in target.group(2),
        has_lineinfo=source is not None,
        source=source.group(1).decode("utf-8", "replace") if source else "",
        kernels=kernels,
        damage=tuple(damage),
    )


def _kernels(text: bytes) -> Iterator[DeviceKernel]:
    if b"/*" in text:
        text = _COMMENT.sub(rb"\1 ", text)
    match = _ENTRY.search(text)
    while match is not None:
        following = _ENTRY.search(text, match.end())
        line = text.rfind(b"\n", max(0, match.start() - _LINE_REACH), match.start()) + 1
        if not _LINE_COMMENT.match(text, line, match.start()):
            end = following.start() if following else len(text)
            body = text.find(b"{", match.end(), min(end, match.end() + _BOUNDS_REACH))
            bounds = _BOUNDS.search(text, match.end(), body) if body >= 0 else None
            yield DeviceKernel(match.group(1).decode(), max_threads=_threads(bounds))
        match = following


def _threads(bounds: re.Match[bytes] | None) -> int | None:
    if bounds is None:
        return None
    x, y, z = (int(number) for number in bounds.groups(default=b"1"))
    return x * y * z
