"""Files are named for what they are, whatever they are called."""

from __future__ import annotations

import pytest

from kgate_scanner.filekind import FileKind, identify
from tests.unit.scanner.device import builders


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"", FileKind.EMPTY),
        (builders.ElfFile().build(), FileKind.ELF),
        (builders.ElfFile(type=builders.ET_REL).build(), FileKind.ELF_OBJECT),
        (b"\x7fELF\x01\x01" + bytes(58), FileKind.ELF_FOREIGN),
        (b"\x7fELF\x02\x02" + bytes(58), FileKind.ELF_FOREIGN),
        (b"\x7fELF", FileKind.ELF_FOREIGN),
        (builders.cubin(), FileKind.CUBIN),
        (builders.hsaco(), FileKind.HSACO),
        (builders.zebin("k"), FileKind.ZEBIN),
        (builders.fatbin(), FileKind.FATBIN),
        (builders.hip_bundle(), FileKind.OFFLOAD_BUNDLE),
        (builders.ccob(b""), FileKind.COMPRESSED_BUNDLE),
        (builders.ptx(), FileKind.PTX),
        (b"/* a */\n\n.version 8.0\n.target sm_80\n", FileKind.PTX),
        (builders.spirv("k"), FileKind.SPIRV),
        (b"MTLB" + bytes(60), FileKind.METALLIB),
        (b"!<arch>\n", FileKind.ARCHIVE),
        (b"MZ\x90\0", FileKind.PE),
        (b"\xcf\xfa\xed\xfe" + bytes(28), FileKind.MACH_O),
        (b"\xca\xfe\xba\xbe\0\0\0\x02", FileKind.MACH_O),
        (b"\xca\xfe\xba\xbe\0\0\0\x41", FileKind.OTHER),
        (b"BC\xc0\xde", FileKind.BITCODE),
        (b"\0asm\x01\0\0\0", FileKind.WASM),
        (b"#!/bin/sh\n", FileKind.SCRIPT),
        (b".versioning is hard", FileKind.OTHER),
        (b"import torch\n", FileKind.OTHER),
    ],
)
def test_the_first_bytes_say_what_a_file_is(head: bytes, kind: FileKind) -> None:
    assert identify(head) is kind
