"""Small libraries, manifests and reports for tests of the scanner."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from kgate_core.digest import Digest
from kgate_core.kernel import Variant
from kgate_core.manifest import FileEntry, Manifest
from kgate_scanner.scan import DEFAULT_LIMITS, scan_files

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kgate_core.evidence import ScanReport
    from kgate_scanner.isolate import ScanLimits

CPU = "torch213-cxx11-cpu-x86_64-linux"
CLEAN = "int add(int a, int b) { return a + b; }\n"
FULL = ("-Wl,-z,relro,-z,now", "-Wl,--build-id=sha1")


@cache
def build_library(source: str = CLEAN, *flags: str) -> bytes:
    """Compile C to a shared library; the same source and flags compile once per session."""
    gcc = shutil.which("gcc")
    assert gcc is not None, "the tests of the scanner compile small libraries with gcc"
    with tempfile.TemporaryDirectory() as place:
        code, library = Path(place, "code.c"), Path(place, "library.so")
        code.write_text(source, encoding="utf-8")
        command = [gcc, "-shared", "-fPIC", "-O1", "-w", "-o", str(library), str(code)]
        subprocess.run([*command, *FULL, *flags], check=True, capture_output=True, timeout=60)
        return library.read_bytes()


def manifest_of(files: Mapping[str, bytes]) -> Manifest:
    """Return the manifest of files in memory."""
    return Manifest.of(FileEntry(path, len(data), Digest.of(data)) for path, data in files.items())


def scan_bytes(
    files: Mapping[str, bytes],
    variant: str | None = None,
    *,
    limits: ScanLimits = DEFAULT_LIMITS,
) -> ScanReport:
    """Scan files in memory, as a variant if one is named."""

    @contextmanager
    def open_file(entry: FileEntry) -> Iterator[memoryview]:
        yield memoryview(files[entry.path])

    parsed = None if variant is None else Variant.parse(variant)
    return scan_files(manifest_of(files), open_file, variant=parsed, limits=limits)


def rules_of(report: ScanReport, path: str | None = None) -> set[str]:
    """Return the ids of all findings, or of those about one file."""
    return {found.rule for found in report.findings if path in {None, found.path}}
