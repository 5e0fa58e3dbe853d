"""Real binaries for fifteen GPU platforms: the bitsandbytes wheel, laid out as a kernel repository.

Each library of the wheel becomes one build variant, byte for byte. The variants are there to be
mirrored and scanned: they do not offer bitsandbytes' Python interface.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kgate_mirror_server.examples.cache import make_once
from kgate_mirror_server.examples.metadata import Metadata, write_metadata
from kgate_mirror_server.examples.wheels import BITSANDBYTES, unpack_wheels

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

REPO: Final = "bitsandbytes-foundation/bitsandbytes"
_NAME: Final = "bitsandbytes"
_VERSION: Final = 1
_UPSTREAM: Final = "https://github.com/bitsandbytes-foundation/bitsandbytes"
_FORMAT: Final = 1  # raise it when this module lays out other bytes from the same wheel

_HOPPER: Final = ("7.0", "7.5", "8.0", "8.6", "8.9", "9.0")
_BLACKWELL: Final = ("8.0", "8.6", "8.9", "9.0", "10.0", "12.0+PTX")
_RDNA: Final = ("gfx1030", "gfx1100", "gfx1101", "gfx1102", "gfx1103", "gfx1150", "gfx1151")
_ROCM64: Final = (
    *_RDNA, "gfx1152", "gfx1153", "gfx1200", "gfx1201", "gfx908", "gfx90a", "gfx942",
)  # fmt: skip
_ROCM70: Final = (*_ROCM64, "gfx950")
_ROCM714: Final = (
    "gfx1010", "gfx1011", "gfx1012", "gfx1031", "gfx1032", "gfx1033", "gfx1034", "gfx1035",
    "gfx1036", "gfx1250", *_ROCM70,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Library:
    """One library of the wheel: `platform` as in its file name, and what it was built for."""

    platform: str
    variant: str
    backend: str
    archs: tuple[str, ...] = ()

    @property
    def file(self) -> str:
        """The file's name, in the wheel and in the variant."""
        return f"libbitsandbytes_{self.platform}.so"


def _cuda(version: str, archs: tuple[str, ...]) -> Library:
    return Library(f"cuda{version}", f"torch213-cxx11-cu{version}-x86_64-linux", "cuda", archs)


def _rocm(version: str, archs: tuple[str, ...]) -> Library:
    return Library(f"rocm{version}", f"torch213-cxx11-rocm{version}-x86_64-linux", "rocm", archs)


def _xpu(release: str) -> Library:
    # Variant names end in a minor version; the wheel names the release year only.
    return Library(f"xpu{release}", f"torch213-cxx11-xpu{release}0-x86_64-linux", "xpu")


LIBRARIES: Final = (
    *(_cuda(version, ("6.0", *_HOPPER, "9.0+PTX")) for version in ("118", "121", "124", "126")),
    _cuda("128", ("7.0", "7.5", *_BLACKWELL)),
    *(_cuda(version, ("7.5", *_BLACKWELL)) for version in ("130", "132")),
    _rocm("64", _ROCM64),
    *(_rocm(version, _ROCM70) for version in ("70", "71", "72")),
    *(_rocm(version, _ROCM714) for version in ("714", "715")),
    *(_xpu(release) for release in ("2025", "2026")),
)


def fetch_bitsandbytes(cache: Path, *, progress: Callable[[str], None] | None = None) -> Path:
    """Return the repository's folder: `README.md`, `LICENSE` and `build/<variant>/…`.

    The wheel (43 MB) is downloaded the first time only; raises UpstreamError if that fails.
    """

    def make(work: Path) -> None:
        if progress is not None:
            progress(f"downloading {BITSANDBYTES.requirement} from PyPI (43 MB, once)")
        wheel = work / "wheel"
        unpack_wheels([BITSANDBYTES], wheel)
        repository = work / REPO
        for library in LIBRARIES:
            _lay_out(library, wheel / _NAME, repository / "build" / library.variant)
        (repository / "README.md").write_text(_README, encoding="utf-8")
        licence = next(wheel.glob("*.dist-info/**/LICENSE*"))
        shutil.copyfile(licence, repository / "LICENSE")
        shutil.rmtree(wheel)

    name = f"{_NAME}-{BITSANDBYTES.digest.short}-{_FORMAT}"
    return make_once(cache, name, make) / REPO


def _lay_out(library: Library, wheel: Path, target: Path) -> None:
    target.mkdir(parents=True)
    shutil.copyfile(wheel / library.file, target / library.file)
    (target / "__init__.py").write_text(_INIT.format(library=library), encoding="utf-8")
    described = Metadata(
        name=_NAME,
        identifier=f"_bitsandbytes_{library.platform}_{BITSANDBYTES.digest.hex[:8]}",
        version=_VERSION,
        license="mit",
        backend=library.backend,
        archs=library.archs,
        upstream=_UPSTREAM,
    )
    write_metadata(target, described)


_INIT: Final = '''"""{library.file} of bitsandbytes 0.50.2, byte for byte."""

from pathlib import Path

LIBRARY = Path(__file__).with_name("{library.file}")
'''

_README: Final = """---
license: mit
tags:
  - kernel
---

# bitsandbytes

The fifteen GPU libraries of bitsandbytes 0.50.2 (CUDA, ROCm, XPU), as PyPI serves them, one build
variant each. Laid out by kgate to be mirrored and scanned.
"""
