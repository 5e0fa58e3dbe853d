"""Compares the wrapper records of the host runtime with the containers that were walked.

A wrapper has 24 bytes: u32 magic, u32 version, u64 address of the container, u64 more. CUDA keeps
them in `.nvFatBinSegment`, HIP in `.hipFatBinSegment`. Each must point to the start of one
container, and each container should have one. Relocatable files are left out: their pointers mean
nothing before linking.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from kgate_scanner.device import rules

if TYPE_CHECKING:
    from kgate_scanner.device.ledger import Ledger
    from kgate_scanner.elf import Elf, Section

RECORD: Final = struct.Struct("<IIQQ")
_MAX_SECTIONS: Final = 16  # with wrappers; linkers make one
_POINTER: Final = 8  # offset of the address within a record


class Flavour(NamedTuple):
    """One vendor's wrappers."""

    section: str
    magic: int
    versions: frozenset[int]
    formats: tuple[str, ...]
    """Formats of the containers that these wrappers point to."""


CUDA: Final = Flavour(".nvFatBinSegment", 0x466243B1, frozenset({1, 2}), ("fatbin",))
HIP: Final = Flavour(
    ".hipFatBinSegment", 0x48495046, frozenset({1}), ("bundle", "ccob-v1", "ccob-v2", "ccob-v3")
)


def check_wrappers(elf: Elf, ledger: Ledger) -> None:
    """Report wrappers without a container and containers without a wrapper."""
    if elf.is_relocatable:
        return
    for flavour in (CUDA, HIP):
        expected = {at for at, name in ledger.containers.items() if name in flavour.formats}
        pointed: set[int] = set()
        sections = elf.named(flavour.section)
        if len(sections) > _MAX_SECTIONS:
            ledger.report(rules.LIMIT, f"{len(sections)} sections named {flavour.section}")
        for section in sections[:_MAX_SECTIONS]:
            pointed |= _check_section(elf, section, flavour, expected, ledger)
        orphans = sorted(expected - pointed)
        for offset in orphans:
            seen = f"no record of {flavour.section} points to the container at {offset:#x}"
            ledger.report(rules.ORPHAN, seen, offset)


def _check_section(
    elf: Elf, section: Section, flavour: Flavour, expected: set[int], ledger: Ledger
) -> set[int]:
    content = elf.content(section)
    count = min(len(content) // RECORD.size, ledger.limits.containers)
    moved = elf.relative_relocations(section.address, section.address + count * RECORD.size)
    pointed = set()
    for number in range(count):
        at = number * RECORD.size
        magic, version, address, more = RECORD.unpack_from(content, at)
        if not (magic or version or address or more):
            continue  # padding
        if magic != flavour.magic or version not in flavour.versions:
            seen = f"a wrapper with magic {magic:#x} and version {version}"
            ledger.report(rules.WRAPPER, seen, section.offset + at)
            continue
        target = elf.file_offset(moved.get(section.address + at + _POINTER, address))
        if target not in expected:
            where = "outside the file" if target is None else f"at {target:#x}"
            seen = f"a wrapper points {where}, where no container starts"
            ledger.report(rules.WRAPPER, seen, section.offset + at)
        else:
            pointed.add(target)
    return pointed
