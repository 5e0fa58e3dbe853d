"""Reads NVIDIA cubins: EM_CUDA ELF files of ABI 7 (up to Hopper) and ABI 8 (Blackwell, CUDA 13).

Taken out: architecture, toolkit, tools with their arguments, and for every kernel the resources
that `cuobjdump -res-usage` lists. Instructions are not decoded. The format is not published; the
numbers below were worked out from files of CUDA 11.8 to 13.2 and checked against cuobjdump.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING, Final

from kgate_scanner.device.code import MAX_KERNELS, CodeObject, list_kernels
from kgate_scanner.device.images import DeviceKernel, Tool
from kgate_scanner.elf import SHT_NOTE, Elf

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kgate_scanner.elf import Section

ABI_7: Final = 0x33  # EI_OSABI
ABI_8: Final = 0x41
_ABI_7_ACCELERATED: Final = 0x800
_ABI_8_ACCELERATED: Final = 0x8
_FIRST_ACCELERATED: Final = 90
_STO_ENTRY: Final = 0x10  # st_other of a kernel
_STT_FUNC: Final = 2
_TYPE_MASK: Final = 0xF
_INDEX_MASK: Final = 0xFFFFFF  # of sh_info; the high byte is used otherwise

NOTE_TKINFO: Final = 2000
NOTE_CUINFO: Final = 1000
_TKINFO: Final = struct.Struct("<6I")
_CUINFO: Final = struct.Struct("<HHI")
_TOOLKIT_BASE: Final = 10  # 0x76 = 118 is release 11.8
_RELEASE: Final = re.compile(r"release ([0-9]+\.[0-9]+)")

# Attributes of .nv.info: u8 format, u8 attribute, u16 value or size of what follows
_SIZED: Final = 4
_ATTRIBUTE: Final = struct.Struct("<BBH")
_PAIR: Final = struct.Struct("<II")
_TRIPLE: Final = struct.Struct("<III")
_MAX_THREADS: Final = 0x05
_REQUIRED_THREADS: Final = 0x10
_MIN_STACK: Final = 0x12
_CBANK_PARAM_SIZE: Final = 0x19
_MAX_STACK: Final = 0x23
_REGISTERS: Final = 0x2F
_PER_SYMBOL: Final = frozenset({_MIN_STACK, _MAX_STACK, _REGISTERS})
_MAX_SYMBOL_FACTS: Final = 8 * MAX_KERNELS  # device functions have them too
_PER_KERNEL: Final = frozenset({_CBANK_PARAM_SIZE, _MAX_THREADS, _REQUIRED_THREADS})
_FORMATS: Final = frozenset({1, 2, 3, 4})

_PREFIXES: Final = (".nv.info.", ".nv.shared.", ".nv.constant0.")


def read_cubin(data: memoryview) -> CodeObject:
    """Return what a cubin says of itself; damage is listed, never raised."""
    elf = Elf(data)
    if elf.header is None:
        return CodeObject(damage=tuple(seen for seen, _ in elf.damage))
    damage: list[str] = []
    toolkit, tools = _notes(elf, damage)
    if not toolkit and elf.header.os_abi == ABI_7:
        toolkit = _release(elf.header.version)
    kernels = list_kernels(_kernels(elf, damage), damage)
    names = {section.name for section in elf.sections}
    damage[:0] = [seen for seen, _ in elf.damage]
    target = _target(elf.header.os_abi, elf.header.flags)
    if not target:
        damage.append(f"cubin of an unknown ABI {elf.header.os_abi:#x}")
    return CodeObject(
        target=target,
        toolkit=toolkit,
        tools=tools,
        debug=".debug_info" in names,
        has_lineinfo=".debug_line" in names,
        relocatable=elf.is_relocatable,
        kernels=kernels,
        damage=tuple(damage),
    )


def _target(os_abi: int, flags: int) -> str:
    if os_abi == ABI_7:
        number, accelerated = flags & 0xFF, flags & _ABI_7_ACCELERATED
    elif os_abi == ABI_8:
        number, accelerated = flags >> 8 & 0xFF, flags & _ABI_8_ACCELERATED
    else:
        return ""
    # Before Hopper there were no such variants, and the bit meant something else.
    return f"sm_{number}{'a' if accelerated and number >= _FIRST_ACCELERATED else ''}"


def _release(number: int) -> str:
    major, minor = divmod(number, _TOOLKIT_BASE)
    return f"{major}.{minor}" if major else ""


def _notes(elf: Elf, damage: list[str]) -> tuple[str, tuple[Tool, ...]]:
    toolkit, tools = "", []
    for section in elf.sections:
        if section.type != SHT_NOTE:
            continue
        for note in elf.notes(section):
            if note.type == NOTE_TKINFO:
                tool = _tool(note.content)
                if tool is None:
                    damage.append("a tool note does not hold its strings")
                    continue
                tools.append(tool)
                release = _RELEASE.search(tool.version)
                toolkit = release.group(1) if release else toolkit
            elif note.type == NOTE_CUINFO and len(note.content) >= _CUINFO.size:
                toolkit = toolkit or _release(_CUINFO.unpack_from(note.content, 0)[2])
    return toolkit, tuple(tools)


def _tool(content: memoryview) -> Tool | None:
    """Read six u32 (version, then string offsets for object, tool, version, build, arguments)."""
    if len(content) < _TKINFO.size:
        return None
    _, *offsets = _TKINFO.unpack_from(content, 0)
    strings = bytes(content[_TKINFO.size :])
    texts = []
    for offset in offsets:
        end = strings.find(b"\0", offset)
        if offset > len(strings) or end < 0:
            return None
        texts.append(strings[offset:end].decode("utf-8", "replace").strip())
    return Tool(name=texts[1], version=texts[2], build=texts[3], args=texts[4])


def _kernels(elf: Elf, damage: list[str]) -> Iterator[DeviceKernel]:
    table = next(iter(elf.named(".symtab")), None)
    if table is None:
        return
    general = next(iter(elf.named(".nv.info")), None)
    per_symbol = _per_symbol(elf, general, damage)
    linked = _linked(elf)
    left = len(elf.data)  # sections may not overlap, so all attributes together fit into this
    for symbol in elf.symbols(table, other=_STO_ENTRY):
        if symbol.info & _TYPE_MASK != _STT_FUNC or not symbol.section:
            continue
        own = {prefix: linked.get((prefix, symbol.section)) for prefix in _PREFIXES}
        for prefix, section in own.items():
            if section is not None and section.name != prefix + symbol.name:
                damage.append(f"{section.name} is linked to the code of {symbol.name}")
        facts: dict[int, int] = {}
        info, shared, constant = (own[prefix] for prefix in _PREFIXES)
        if info is not None:
            left -= info.size
            facts = _kernel_facts(elf.content(info), damage) if left >= 0 else {}
        stack = per_symbol.get((_MIN_STACK, symbol.number))
        if stack is None:
            stack = per_symbol.get((_MAX_STACK, symbol.number))
        yield DeviceKernel(
            name=symbol.name,
            registers=per_symbol.get((_REGISTERS, symbol.number)),
            shared=shared.size & 0xFFFFFFFF if shared else 0,
            stack=stack,
            constant=constant.size & 0xFFFFFFFF if constant else None,
            params=facts.get(_CBANK_PARAM_SIZE),
            max_threads=facts.get(_MAX_THREADS),
        )


def _linked(elf: Elf) -> dict[tuple[str, int], Section]:
    """Return the sections that belong to one kernel, by prefix and number of its code section.

    Names will not do: static functions of several source files may share one.
    """
    found: dict[tuple[str, int], Section] = {}
    for section in elf.sections:
        name = section.name
        if name.startswith(_PREFIXES):
            prefix = next(prefix for prefix in _PREFIXES if name.startswith(prefix))
            found.setdefault((prefix, section.info & _INDEX_MASK), section)
    return found


def _per_symbol(elf: Elf, section: Section | None, damage: list[str]) -> dict[tuple[int, int], int]:
    """Return (attribute, symbol) -> value of the section that speaks about all kernels."""
    found: dict[tuple[int, int], int] = {}
    if section is not None:
        raw = bytes(elf.content(section))
        for attribute, value, at in _attributes(raw, _PER_SYMBOL, damage):
            if len(found) > _MAX_SYMBOL_FACTS:
                damage.append("more kernel attributes than kernels")
                break
            if value == _PAIR.size and at:
                symbol, number = _PAIR.unpack_from(raw, at)
                found[attribute, symbol] = number
    return found


def _kernel_facts(view: memoryview, damage: list[str]) -> dict[int, int]:
    raw, facts = bytes(view), {}
    for attribute, value, at in _attributes(raw, _PER_KERNEL, damage):
        if attribute == _CBANK_PARAM_SIZE:
            facts[attribute] = value
        elif value == _TRIPLE.size and at:
            x, y, z = _TRIPLE.unpack_from(raw, at)
            facts[_MAX_THREADS] = min(x * y * z, 0xFFFFFFFF)
    return facts


def _attributes(
    raw: bytes, wanted: frozenset[int], damage: list[str]
) -> Iterator[tuple[int, int, int]]:
    """Yield attribute, inline value or size, and where the content starts (0: inline)."""
    at, end, unpack = 0, len(raw) - _ATTRIBUTE.size, _ATTRIBUTE.unpack_from
    while at <= end:
        layout, attribute, value = unpack(raw, at)
        at += 4
        if layout == _SIZED:
            if at + value > len(raw):
                damage.append("a kernel attribute ends outside its section")
                return
            if attribute in wanted:
                yield attribute, value, at
            at += value
        elif layout not in _FORMATS:
            damage.append(f"a kernel attribute of format {layout}")
            return
        elif attribute in wanted:
            yield attribute, value, 0
