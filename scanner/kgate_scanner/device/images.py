"""What a scan of device code returns: kernels, images, and the whole of one file.

These are values; nothing here reads bytes. Sizes are bytes; a number that the code object does not
state is None and left out of the JSON.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, fields
from enum import StrEnum, unique
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kgate_core.digest import Digest
    from kgate_core.evidence import Finding


@unique
class ImageKind(StrEnum):
    """What one image is."""

    CUBIN = "cubin"
    """NVIDIA machine code (SASS) in an EM_CUDA ELF."""
    PTX = "ptx"
    """NVIDIA's textual virtual instruction set; the driver compiles it when it is loaded."""
    LTO_IR = "lto-ir"
    """NVVM IR that a linker compiles when it is loaded."""
    HSACO = "hsaco"
    """AMD machine code in an EM_AMDGPU ELF."""
    SPIRV = "spirv"
    """Khronos SPIR-V; the driver compiles it when it is loaded."""
    ZEBIN = "zebin"
    """Intel GPU machine code in an EM_INTELGT ELF."""
    DEVICE_ARCHIVE = "device-archive"
    """Several Intel images, one per device, in an `ar` archive."""
    BUNDLE = "offload-bundle"
    """Clang's offload bundle; listed by its members, never as an image of its own."""
    METALLIB = "metallib"
    """Apple Metal library; its compute functions are listed by name."""
    UNKNOWN = "unknown"
    """An entry of a known container whose kind is not known."""


@unique
class Compression(StrEnum):
    """How an image (or the bundle that holds it) is stored."""

    NONE = "none"
    LZ4 = "lz4"
    ZSTD = "zstd"
    ZLIB = "zlib"


@dataclass(frozen=True, slots=True)
class DeviceKernel:
    """One entry point of an image with the resources it states."""

    name: str
    registers: int | None = None
    """NVIDIA registers per thread."""
    shared: int | None = None
    """Static shared memory (NVIDIA) or LDS (AMD), bytes per block."""
    stack: int | None = None
    """NVIDIA local stack, bytes per thread."""
    constant: int | None = None
    """NVIDIA constant bank 0, bytes."""
    params: int | None = None
    """Bytes of kernel arguments."""
    max_threads: int | None = None
    """Most threads per block that the code was compiled for."""
    vgpr: int | None = None
    agpr: int | None = None
    sgpr: int | None = None
    scratch: int | None = None
    """AMD private segment, bytes per work-item."""
    spills: int | None = None
    """AMD vector registers spilled to scratch."""
    wavefront: int | None = None
    """AMD work-items per wavefront."""

    def to_json(self) -> dict[str, Any]:
        """Return the kernel as a JSON object without unknown numbers."""
        values = zip(_KERNEL_FIELDS, _kernel_values(self), strict=True)
        return {name: value for name, value in values if value is not None}


# A large library has 15,000 kernels: looking its fields up anew for each would take longer than
# reading them.
_KERNEL_FIELDS: Final = tuple(item.name for item in fields(DeviceKernel))
_kernel_values = attrgetter(*_KERNEL_FIELDS)


@dataclass(frozen=True, slots=True)
class Tool:
    """One tool that took part in making an image, in its own words."""

    name: str
    version: str = ""
    build: str = ""
    args: str = ""

    def to_json(self) -> dict[str, str]:
        """Return the tool as a JSON object without empty fields."""
        said = {"name": self.name, "version": self.version, "build": self.build, "args": self.args}
        return {key: value for key, value in said.items() if value}


@dataclass(frozen=True, slots=True)
class DeviceImage:
    """One piece of device code: where it lies, what it is and what it says of itself."""

    kind: ImageKind
    target: str
    """Architecture as the vendor writes it: `sm_90a`, `compute_90`, `gfx90a:xnack+`."""
    container_format: str
    """What holds it: `fatbin`, `bundle`, `ccob-v3`, `sycl`, `file`."""
    section: str
    """ELF section it lies in; empty for a file of its own or bytes outside all sections."""
    container: int
    """Number of the container within the file, from 0 in the order of the walk."""
    entry: int
    """Number of the entry within the container, from 0."""
    offset: int
    """Byte offset in the file of the stored bytes; members of a compressed bundle share one."""
    stored_size: int
    """Bytes as stored; members of a compressed bundle have the size of that bundle."""
    size: int
    """Bytes after decompression."""
    compression: Compression
    digest: Digest | None
    """sha256 of the decompressed bytes (of the stored bytes if only the vendor can decode them);
    None if they could not be had, which is a finding."""
    toolkit: str = ""
    """Release of the toolkit, such as `12.8`, as far as the image says."""
    tools: tuple[Tool, ...] = ()
    debug: bool = False
    """Built for debugging (`-G`), that is without optimisation."""
    lineinfo: str = ""
    """Name of the source file that line information refers to."""
    relocatable: bool = False
    """Input of the device linker, not loadable by itself."""
    options: str = ""
    """Compiler options that the container holds for later compilation."""
    kernels: tuple[DeviceKernel, ...] = ()

    @property
    def is_machine_code(self) -> bool:
        """True if a GPU runs these very bytes, false if something compiles them first."""
        return self.kind in {ImageKind.CUBIN, ImageKind.HSACO, ImageKind.ZEBIN}

    def to_json(self, *, kernels: bool = True) -> dict[str, Any]:
        """Return the image as a JSON object without empty fields; kernels only if asked for."""
        document: dict[str, Any] = {
            "kind": str(self.kind),
            "target": self.target,
            "containerFormat": self.container_format,
            "section": self.section,
            "container": self.container,
            "entry": self.entry,
            "offset": self.offset,
            "storedSize": self.stored_size,
            "size": self.size,
            "compression": str(self.compression),
            "digest": str(self.digest) if self.digest else "",
            "toolkit": self.toolkit,
            "tools": [tool.to_json() for tool in self.tools],
            "debug": self.debug,
            "lineinfo": self.lineinfo,
            "relocatable": self.relocatable,
            "options": self.options,
        }
        always = {"container", "entry", "offset", "storedSize", "size"}
        document = {key: value for key, value in document.items() if value or key in always}
        document["kernelCount"] = len(self.kernels)
        if kernels and self.kernels:
            document["kernels"] = [kernel.to_json() for kernel in self.kernels]
        return document


@dataclass(frozen=True, slots=True)
class DeviceScan:
    """All device code of one file; equal bytes give an equal scan."""

    images: tuple[DeviceImage, ...] = ()
    findings: tuple[Finding, ...] = ()
    unexplained_bytes: int = 0
    """Bytes of device sections, zeros aside, that belong to no image or header."""
    containers: int = 0
    complete: bool = True
    """False if something could not be read: then absence of findings proves nothing."""

    @property
    def targets(self) -> tuple[str, ...]:
        """The distinct targets, sorted; images that name none are left out."""
        return tuple(sorted({image.target for image in self.images} - {""}))

    @property
    def kernel_count(self) -> int:
        """Kernels of all images together."""
        return sum(len(image.kernels) for image in self.images)

    def to_json(self, *, kernels: bool = True) -> dict[str, Any]:
        """Return summary and images as a JSON object; findings are reported by the caller."""
        return {
            "containers": self.containers,
            "imageCount": len(self.images),
            "kernelCount": self.kernel_count,
            "targets": list(self.targets),
            "kinds": _counted(image.kind for image in self.images),
            "compressions": _counted(image.compression for image in self.images),
            "unexplainedBytes": self.unexplained_bytes,
            "complete": self.complete,
            "images": [image.to_json(kernels=kernels) for image in self.images],
        }


def _counted(words: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(map(str, words)).items()))
