"""Names AMD GPU targets from the flags of a code object.

The numbers are those of the LLVM documentation, "User Guide for AMDGPU Backend", tables "AMDGPU
EF_AMDGPU_MACH Values" and "ELF e_flags" for code object V4 and later. Code objects V2 and V3 keep
their features elsewhere; they are named without features.
"""

from __future__ import annotations

from typing import Final

_MACH_MASK: Final = 0xFF
_V4: Final = 2  # EI_ABIVERSION of code object V4
_XNACK: Final = {0x200: ":xnack-", 0x300: ":xnack+"}
_XNACK_MASK: Final = 0x300
_SRAMECC: Final = {0x800: ":sramecc-", 0xC00: ":sramecc+"}
_SRAMECC_MASK: Final = 0xC00

MACHS: Final = {
    0x020: "gfx600",
    0x021: "gfx601",
    0x022: "gfx700",
    0x023: "gfx701",
    0x024: "gfx702",
    0x025: "gfx703",
    0x026: "gfx704",
    0x028: "gfx801",
    0x029: "gfx802",
    0x02A: "gfx803",
    0x02B: "gfx810",
    0x02C: "gfx900",
    0x02D: "gfx902",
    0x02E: "gfx904",
    0x02F: "gfx906",
    0x030: "gfx908",
    0x031: "gfx909",
    0x032: "gfx90c",
    0x033: "gfx1010",
    0x034: "gfx1011",
    0x035: "gfx1012",
    0x036: "gfx1030",
    0x037: "gfx1031",
    0x038: "gfx1032",
    0x039: "gfx1033",
    0x03A: "gfx602",
    0x03B: "gfx705",
    0x03C: "gfx805",
    0x03D: "gfx1035",
    0x03E: "gfx1034",
    0x03F: "gfx90a",
    0x040: "gfx940",
    0x041: "gfx1100",
    0x042: "gfx1013",
    0x043: "gfx1150",
    0x044: "gfx1103",
    0x045: "gfx1036",
    0x046: "gfx1101",
    0x047: "gfx1102",
    0x048: "gfx1200",
    0x049: "gfx1250",
    0x04A: "gfx1151",
    0x04B: "gfx941",
    0x04C: "gfx942",
    0x04E: "gfx1201",
    0x04F: "gfx950",
    0x050: "gfx1310",
    0x051: "gfx9-generic",
    0x052: "gfx10-1-generic",
    0x053: "gfx10-3-generic",
    0x054: "gfx11-generic",
    0x055: "gfx1152",
    0x057: "gfx1154",
    0x058: "gfx1153",
    0x059: "gfx12-generic",
    0x05A: "gfx1251",
    0x05B: "gfx12-5-generic",
    0x05C: "gfx1172",
    0x05D: "gfx1170",
    0x05E: "gfx1171",
    0x05F: "gfx9-4-generic",
    0x062: "gfx11-7-generic",
    0x063: "gfx13-generic",
}


def target_id(abi_version: int, flags: int) -> str:
    """Return the target id such as `gfx90a:sramecc+:xnack-`; empty for an unknown machine."""
    name = MACHS.get(flags & _MACH_MASK, "")
    if not name or abi_version < _V4:
        return name
    return name + _SRAMECC.get(flags & _SRAMECC_MASK, "") + _XNACK.get(flags & _XNACK_MASK, "")
