"""Tells what a file is from its bytes, and says which kinds have no place in a kernel.

Content decides, a name only raises suspicion. It does not look inside: ELF, device code, Python
and metadata have their own modules.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

from kgate_scanner import rules_files as rules
from kgate_scanner.filekind import HEAD_BYTES, FileKind
from kgate_scanner.filekind import identify as identify_magic

if TYPE_CHECKING:
    from kgate_core.evidence import Finding
    from kgate_scanner.rules import Rule

METADATA: Final = "metadata.json"
SIGNATURE: Final = "metadata.json.sigstore"
_STATUS: Final = "kernel-status.toml"
_STARTUP: Final = frozenset({"sitecustomize.py", "usercustomize.py"})
_BYTECODE: Final = frozenset({".pyc", ".pyo"})
_PICKLES: Final = frozenset({".pkl", ".pickle", ".pt", ".pth.tar", ".joblib", ".ckpt", ".marshal"})
_LIBRARY: Final = frozenset({".so", ".dll", ".dylib", ".pyd"})
_PICKLE_MIN: Final = 2  # protocol 2 is the first that begins with a mark
_PICKLE_MAX: Final = 5
_ET_DYN: Final = b"\x03\x00"
_MODULE_MARKS: Final = (b".gnu.linkonce.this_module", b".modinfo\0")
"""Names of sections that the Linux module loader itself looks for."""


class Kind(StrEnum):
    """What a file is."""

    LIBRARY = "elf-shared-object"
    OBJECT = "elf-object"
    PROGRAM = "elf-program"
    FOREIGN_ELF = "elf-foreign"
    KERNEL_MODULE = "os-kernel-module"
    DEVICE = "device-code"
    PE = "pe"
    MACHO = "mach-o"
    CODE = "other-code"
    PYTHON = "python"
    BYTECODE = "python-bytecode"
    METADATA = "metadata"
    SIGNATURE = "signature"
    ARCHIVE = "archive"
    STATIC_ARCHIVE = "static-archive"
    PICKLE = "pickle"
    SCRIPT = "script"
    TEXT = "text"
    DATA = "data"
    EMPTY = "empty"


_KINDS: Final = {
    FileKind.CUBIN: Kind.DEVICE,
    FileKind.HSACO: Kind.DEVICE,
    FileKind.ZEBIN: Kind.DEVICE,
    FileKind.FATBIN: Kind.DEVICE,
    FileKind.OFFLOAD_BUNDLE: Kind.DEVICE,
    FileKind.COMPRESSED_BUNDLE: Kind.DEVICE,
    FileKind.PTX: Kind.DEVICE,
    FileKind.SPIRV: Kind.DEVICE,
    FileKind.METALLIB: Kind.DEVICE,
    FileKind.BITCODE: Kind.DEVICE,
    FileKind.WASM: Kind.CODE,
    FileKind.ARCHIVE: Kind.STATIC_ARCHIVE,
    FileKind.PE: Kind.PE,
    FileKind.MACH_O: Kind.MACHO,
}
_ARCHIVES: Final[tuple[tuple[int, bytes], ...]] = (
    (0, b"PK\x03\x04"),
    (0, b"PK\x05\x06"),
    (0, b"\x1f\x8b"),
    (0, b"BZh"),
    (0, b"\xfd7zXZ\x00"),
    (0, b"7z\xbc\xaf\x27\x1c"),
    (0, b"Rar!\x1a\x07"),
    (0, b"\x28\xb5\x2f\xfd"),
    (0, b"\x04\x22\x4d\x18"),
    (0, b"hsqs"),
    (257, b"ustar"),
)
"""Offset and magic of zip, gzip, bzip2, xz, 7z, rar, zstd, lz4, squashfs and tar."""


@dataclass(frozen=True, slots=True)
class Identified:
    """What a file is and what is wrong with its being there."""

    kind: Kind
    findings: tuple[Finding, ...] = ()


def identify(data: memoryview, path: str, *, system: str | None = "linux") -> Identified:
    """Return the kind of a file; `system` is the variant's operating system, None if unknown."""
    kind = _kind(data, path)
    findings = [rule.finding(path, seen) for rule, seen in _objections(kind, path, data, system)]
    return Identified(kind, tuple(findings))


def _kind(data: memoryview, path: str) -> Kind:
    name = PurePosixPath(path)
    head = bytes(data[:HEAD_BYTES])
    magic = identify_magic(head)
    source = name.suffix in {".py", ".pyi"}
    if magic in {FileKind.ELF, FileKind.ELF_OBJECT, FileKind.ELF_FOREIGN}:
        return _elf_kind(data, head, magic)
    if name.suffix in _BYTECODE or "__pycache__" in name.parts[:-1]:
        return Kind.BYTECODE
    if magic in _KINDS:
        return _KINDS[magic]
    if magic in {FileKind.EMPTY, FileKind.SCRIPT}:
        other = Kind.EMPTY if magic is FileKind.EMPTY else Kind.SCRIPT
        return Kind.PYTHON if source else other
    if name.suffix in _PICKLES or _is_pickle(data, head):
        return Kind.PICKLE
    if any(head[offset : offset + len(mark)] == mark for offset, mark in _ARCHIVES):
        return Kind.ARCHIVE
    if source:
        return Kind.PYTHON
    if path in {METADATA, SIGNATURE}:
        return Kind.METADATA if path == METADATA else Kind.SIGNATURE
    return _text_kind(head)


def _elf_kind(data: memoryview, head: bytes, magic: FileKind) -> Kind:
    # A search needs no header to be sound, so a damaged module is still called by its name.
    if magic is not FileKind.ELF and any(_holds(data, mark) for mark in _MODULE_MARKS):
        return Kind.KERNEL_MODULE
    match magic:
        case FileKind.ELF_OBJECT:
            return Kind.OBJECT
        case FileKind.ELF_FOREIGN:
            return Kind.FOREIGN_ELF
        case _:
            # A position independent program is ET_DYN too; `host` tells it by its interpreter.
            return Kind.LIBRARY if head[16:18] == _ET_DYN else Kind.PROGRAM


def _holds(data: memoryview, mark: bytes) -> bool:
    step = 1 << 24
    return any(mark in bytes(data[at : at + step + len(mark)]) for at in range(0, len(data), step))


def _is_pickle(data: memoryview, head: bytes) -> bool:
    # Protocol 2 and later: PROTO, its number, ... and STOP as the last byte.
    return (
        len(head) > _PICKLE_MIN
        and head[0] == 0x80  # noqa: PLR2004  # opcode PROTO
        and _PICKLE_MIN <= head[1] <= _PICKLE_MAX
        and data[-1] == ord(".")
    )


def _text_kind(head: bytes) -> Kind:
    if b"\0" in head:
        return Kind.DATA
    try:
        # The head may end inside a character, so this is not the final part of a text.
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return Kind.DATA
    return Kind.TEXT


def _objections(  # noqa: C901, PLR0912  # one line per kind reads better than a table of tables
    kind: Kind, path: str, data: memoryview, system: str | None
) -> list[tuple[Rule, str]]:
    name = PurePosixPath(path)
    said: list[tuple[Rule, str]] = []
    if name.name in _STARTUP or name.suffix == ".pth":
        said.append((rules.STARTUP_HOOK, f"{name.name} runs in every Python process that finds it"))
    if ".ko" in name.suffixes and kind is not Kind.KERNEL_MODULE:
        seen = f"named like an operating-system kernel module, its content is {kind}"
        said.append((rules.KERNEL_MODULE, seen))
    if name.name == _STATUS:
        said.append((rules.REDIRECT, "kernel-status.toml sends clients to another repository"))
    if _named_library(name) and kind not in {
        Kind.LIBRARY,
        Kind.KERNEL_MODULE,
        Kind.PE,
        Kind.MACHO,
        Kind.PROGRAM,
        Kind.FOREIGN_ELF,
    }:
        said.append((rules.DISGUISED, f"named like a shared library, but its content is {kind}"))
    match kind:
        case Kind.BYTECODE:
            said.append((rules.BYTECODE, f"{name.name} is compiled Python that no digest covers"))
        case Kind.KERNEL_MODULE:
            said.append(
                (
                    rules.KERNEL_MODULE,
                    "this is an operating-system kernel module, not a GPU compute kernel",
                )
            )
        case Kind.PE:
            said.append(
                _foreign(rules.WINDOWS_BINARY, "a Windows (PE)", system in {None, "windows"})
            )
        case Kind.MACHO:
            said.append(
                _foreign(rules.APPLE_BINARY, "an Apple (Mach-O)", system in {None, "darwin"})
            )
        case Kind.ARCHIVE:
            said.append((rules.ARCHIVE, f"an archive of {len(data)} bytes that was not unpacked"))
        case Kind.PROGRAM:
            said.append((rules.EXECUTABLE, "an ELF file that is not a shared library"))
        case Kind.FOREIGN_ELF:
            said.append((rules.FOREIGN_BINARY, "an ELF file that is not 64-bit little-endian"))
        case Kind.CODE:
            said.append((rules.FOREIGN_BINARY, "WebAssembly"))
        case Kind.OBJECT | Kind.STATIC_ARCHIVE:
            said.append((rules.BUILD_LEFTOVER, f"{kind} left over by a build"))
        case Kind.SCRIPT:
            line = bytes(data[:80]).split(b"\n", 1)[0].decode("ascii", "backslashreplace")
            said.append((rules.SCRIPT, f"begins with {line!r}"))
        case Kind.PICKLE:
            said.append((rules.PICKLE, "reading this file can call any function"))
        case Kind.DEVICE:
            said.append((rules.LOOSE_DEVICE, "device code in a file of its own"))
        case _:
            pass
    return said


def _foreign(rule: Rule, what: str, expected: bool) -> tuple[Rule, str]:  # noqa: FBT001  # private
    if expected:
        return rules.FOREIGN_BINARY, f"{what} binary; only its format was recognised"
    return rule, f"{what} binary in a variant for another system"


def _named_library(name: PurePosixPath) -> bool:
    # libfoo.so.1.2 as well as libfoo.so
    return not _LIBRARY.isdisjoint(name.suffixes) and name.suffix not in {".py", ".txt", ".json"}
