"""Looks at one file with every parser that fits its kind. Runs in the child process.

It knows one file only: what needs the other files (the closed library set, the publisher's
digests) is done in `variant` over the facts that come back.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

from kgate_scanner import cacherecords, metadata, python
from kgate_scanner.device import scan_device
from kgate_scanner.elf import Elf
from kgate_scanner.files import Kind, identify
from kgate_scanner.isolate import Inspected

if TYPE_CHECKING:
    from types import ModuleType

    from kgate_core.evidence import Facts, Finding

_LATER: Final = ("encodings.idna", "encodings.latin_1", "encodings.ascii", "encodings.utf_8_sig")
_SMALLEST: Final = b"\x7fELF\x02\x01\x01" + bytes(57)
"""Modules that Python imports when first used: too late once no file can be opened."""

_MAY_HOLD_DEVICE_CODE: Final = frozenset(Kind) - {
    Kind.PYTHON,
    Kind.METADATA,
    Kind.SIGNATURE,
    Kind.EMPTY,
    Kind.TEXT,
    Kind.SCRIPT,
}
"""Everything that is not text: a device image can be put into any other file."""


def preload(*, libraries: bool) -> None:
    """Import everything that `inspect_file` may ever need, LIEF only if there are libraries."""
    for name in _LATER:
        importlib.import_module(name)
    if libraries:
        _host().preload()
    python.preload()
    scan_device(memoryview(_SMALLEST), "preload")


def inspect_file(data: memoryview, path: str, *, system: str | None) -> Inspected:
    """Return facts and findings about the bytes of one file; may raise what its parsers raise."""
    identified = identify(data, path, system=system)
    facts: Facts = {"kind": str(identified.kind)}
    findings: list[Finding] = list(identified.findings)
    complete = True
    match identified.kind:
        case Kind.LIBRARY:
            elf = Elf(data)
            read = _host().read_host(elf, path)
            facts["host"] = read.facts
            findings += (*elf.findings(path), *read.findings)
            complete = bool(read.facts) and not elf.damage
        case Kind.PYTHON:
            source = python.read_python(data, path)
            facts["python"] = source.facts
            findings += source.findings
            complete = source.complete
        case Kind.METADATA:
            document = metadata.read_metadata(data, path)
            facts["metadata"] = document.facts
            findings += document.findings
        case Kind.TEXT:
            if record := cacherecords.read_record(data, path):
                facts["record"] = record
        case _:
            pass
    if identified.kind in _MAY_HOLD_DEVICE_CODE:
        device = scan_device(data, path)
        if device.containers or device.images:
            facts["device"] = device.to_json()
        findings += device.findings
        complete = complete and device.complete
    return Inspected(facts, tuple(findings), complete)


def _host() -> ModuleType:
    # LIEF takes half a second to import: kernels of pure Python need not wait for it.
    return importlib.import_module("kgate_scanner.host")
