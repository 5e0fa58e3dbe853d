"""Reads the host side of a shared library with LIEF: what it needs, can do and promises.

LIEF is lenient and reads whole files, so it is given a copy without large payloads (`hostcopy`)
and damage is judged elsewhere (`elf`). Undefined symbols are the dynamic symbols of section 0:
LIEF's own list of imports leaves some out. Device code is not looked at here.
"""

from __future__ import annotations

import logging
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import lief

from kgate_scanner import dynamic as dyn
from kgate_scanner import rules_host as rules
from kgate_scanner import strings, symbols
from kgate_scanner.elf_records import NOBITS
from kgate_scanner.hostcopy import TooLargeError, host_copy

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kgate_core.evidence import Facts, Finding
    from kgate_scanner.elf import Elf
    from kgate_scanner.rules import Rule

_log = logging.getLogger(__name__)

_MACHINES: Final = {3: "i386", 40: "arm", 62: "x86_64", 183: "aarch64", 21: "ppc64le",
                    22: "s390x", 243: "riscv64"}  # fmt: skip
_DEVICE_SECTIONS: Final = (".nv_fatbin", "__nv_relfatbin", ".hip_fatbin", "__CLANG_OFFLOAD_")
_SHOFF_AT, _SHDR_SIZE = 40, 64  # place in the ELF header; bytes of one section header
_PADDING: Final = 65_536  # bytes; the largest page
_SHT_PROGBITS, _SHF_EXECINSTR = 1, 4
_DF_BIND_NOW, _DF_TEXTREL, _DF_1_NOW = 0x8, 0x4, 0x1
_MAX_LISTED: Final = 200  # names per list in the facts
_MAX_SYMBOLS: Final = 8192  # of one kind; the largest library of the corpus exports 5,064
_MAX_CONSTRUCTORS: Final = 1_000_000
_MAX_SHOWN: Final = 5  # addresses in one finding
_MAX_TEXT: Final = 512  # characters of one name
_BUILDER_GLIBC: Final = (2, 28)  # kernel-builder's toolchain: manylinux_2_28
_MANYLINUX: Final = (
    # glibc, GLIBCXX, CXXABI: the newest symbol versions that PEP 600 platforms provide
    ((2, 17), (3, 4, 19), (1, 3, 7)),
    ((2, 24), (3, 4, 22), (1, 3, 10)),
    ((2, 28), (3, 4, 25), (1, 3, 11)),
    ((2, 31), (3, 4, 28), (1, 3, 12)),
    ((2, 34), (3, 4, 29), (1, 3, 13)),
    ((2, 35), (3, 4, 30), (1, 3, 13)),
    ((2, 39), (3, 4, 33), (1, 3, 15)),
)
_GROUP_RULES: Final = {
    "processes": (rules.STARTS_PROCESSES, "imports functions that start programs:"),
    "network": (rules.USES_NETWORK, "imports functions of the network:"),
    "loading": (rules.LOADS_CODE, "imports functions that load libraries:"),
    "memory": (rules.TOUCHES_MEMORY, "imports functions that change memory or processes:"),
}


@dataclass(frozen=True, slots=True)
class HostFacts:
    """Facts and findings about one library's host code."""

    facts: Facts
    findings: tuple[Finding, ...]


def preload() -> None:
    """Make LIEF quiet and touch what it loads on first use."""
    lief.logging.disable()
    lief.ELF.parse(b"\x7fELF")


def read_host(elf: Elf, path: str) -> HostFacts:
    """Return what LIEF and the strings of the file tell; raises nothing for bad input."""
    try:
        binary = lief.ELF.parse(host_copy(elf), _config())
    except TooLargeError:
        return _unreadable(path, "its tables are too large to be read")
    if binary is None or int(binary.header.machine_type.value) not in _MACHINES:
        return _unreadable(path, "its headers make no sense or are for an unknown machine")
    dynamic = dyn.read_dynamic(elf)
    facts = _facts(binary, dynamic)
    hidden = list(dyn.check_views(elf, dynamic, len(binary.dynamic_symbols)))
    facts |= strings.read_strings(elf.data, _constants(elf))
    facts["overlay"] = _overlay(elf)
    facts["python"]["abi3"] = ".abi3." in path.rpartition("/")[2]
    findings = [rules.HIDDEN_SYMBOLS.finding(path, seen) for seen in hidden[:_MAX_SHOWN]]
    return HostFacts(facts, (*findings, *_findings(facts, path)))


def _config() -> Any:  # noqa: ANN401  # LIEF ships no usable types
    config = lief.ELF.ParserConfig()
    config.parse_relocations = False
    config.parse_symtab_symbols = False
    config.parse_overlay = False
    return config


def _unreadable(path: str, why: str) -> HostFacts:
    return HostFacts({}, (rules.NOT_ELF.finding(path, why),))


def _facts(binary: Any, dynamic: dyn.Dynamic) -> Facts:  # noqa: ANN401
    tags, named = dynamic.values, dynamic.texts
    undefined = sorted(_names(s for s in binary.dynamic_symbols if s.shndx == 0))
    exported = _names(s for s in binary.dynamic_symbols if s.shndx != 0 and s.value)
    versions = _versions(binary)
    imported, private = symbols.python_imports(undefined)
    flags, flags_1 = tags.get(dyn.DT_FLAGS, 0), tags.get(dyn.DT_FLAGS_1, 0)
    now = dyn.DT_BIND_NOW in tags or bool(flags & _DF_BIND_NOW or flags_1 & _DF_1_NOW)
    relro = any(_kind(segment) == "GNU_RELRO" for segment in binary.segments)
    return {
        "machine": _MACHINES[int(binary.header.machine_type.value)],
        "soname": next(iter(named[dyn.DT_SONAME]), None),
        "needed": named[dyn.DT_NEEDED],
        "rpath": _paths(named[dyn.DT_RPATH]),
        "runpath": _paths(named[dyn.DT_RUNPATH]),
        "loaderHooks": sorted(
            dyn.LOADER_HOOKS[tag] for tag in dyn.LOADER_HOOKS.keys() & tags.keys()
        ),
        "interpreter": binary.interpreter if binary.has_interpreter else None,
        "versions": {name: _dotted(number) for name, number in sorted(versions.items())},
        "manylinux": _manylinux(versions),
        "python": {
            "init": sorted(
                name for name in exported if name.startswith(("PyInit_", "PyModExport_"))
            ),
            "imports": imported,
            "private": private[:_MAX_LISTED],
        },
        "torchAbi": symbols.torch_abi(undefined),
        "hardening": {
            "relro": ("full" if now else "partial") if relro else "none",
            "bindNow": now,
            "executableStack": _executable_stack(binary),
            "writableCode": sum(_rwx(segment) for segment in binary.segments),
            "textRelocations": dyn.DT_TEXTREL in tags or bool(flags & _DF_TEXTREL),
            "canary": "__stack_chk_fail" in undefined,
            "fortified": sum(name.startswith("__") and name.endswith("_chk") for name in undefined),
        },
        "constructors": min(tags.get(dyn.DT_INIT_ARRAYSZ, 0) // 8, _MAX_CONSTRUCTORS),
        "imports": len(undefined),
        "dangerous": symbols.dangerous(undefined),
        "exports": len(exported),
        "interposes": sorted(symbols.INTERPOSED & exported),
        "symbols": {
            "imports": undefined[:_MAX_SYMBOLS],
            "exports": sorted(exported)[:_MAX_SYMBOLS],
            "complete": max(len(undefined), len(exported)) <= _MAX_SYMBOLS,
        },
        "compilers": _compilers(binary),
        "buildId": _build_id(binary),
        "debug": any(str(s.name).startswith((".debug_", ".zdebug_")) for s in binary.sections),
    }


def _findings(facts: Facts, path: str) -> Iterator[Finding]:
    hardening = facts["hardening"]
    glibc = facts["versions"].get("GLIBC", "")
    urls = facts["urls"]
    seen: dict[Rule, str] = {
        rules.EXECUTABLE_STACK: hardening["executableStack"]
        and "PT_GNU_STACK is missing or asks for execution",
        rules.WRITABLE_CODE: hardening["writableCode"]
        and f"{hardening['writableCode']} segment(s) are writable and executable",
        rules.TEXT_RELOCATIONS: hardening["textRelocations"] and "dyn.DT_TEXTREL is set",
        rules.NO_RELRO: hardening["relro"] == "none" and "there is no PT_GNU_RELRO segment",
        rules.LOADER_HOOK: _listed("has the loader tags", facts["loaderHooks"]),
        rules.INTERPOSES: _listed("exports", facts["interposes"]),
        rules.NEW_GLIBC: _listed("needs glibc", [glibc] if _number(glibc) > _BUILDER_GLIBC else []),
        rules.PROGRAM: facts["interpreter"] and f"names the interpreter {facts['interpreter']!r}",
        rules.BUILD_PATH: _listed("for example", facts["buildPaths"][:1]),
        rules.URLS: urls and f"{len(urls)}: {', '.join(urls[:_MAX_SHOWN])}",
        rules.CREDENTIALS: _listed("mentions", facts["credentials"]),
        rules.OVERLAY: facts["overlay"] and f"{facts['overlay']} bytes behind the last section",
    }
    for group, (rule, what) in _GROUP_RULES.items():
        seen[rule] = _listed(what, facts["dangerous"].get(group, []))
    for rule, text in seen.items():
        if text:
            yield rule.finding(path, text)


def _listed(what: str, names: list[str]) -> str:
    return f"{what} {', '.join(names)}" if names else ""


def _text(value: str | bytes) -> str:
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value
    return text[:_MAX_TEXT]


def _paths(values: list[str]) -> list[str]:
    return [part for value in values for part in value.split(":")]


def _names(found: Iterable[Any]) -> set[str]:
    names = set()
    for symbol in found:
        try:
            name = symbol.name
        except UnicodeDecodeError:
            continue  # not a name that any library exports
        if name:
            names.add(_text(name))
    return names


def _versions(binary: Any) -> dict[str, tuple[int, ...]]:  # noqa: ANN401
    newest: dict[str, tuple[int, ...]] = {}
    for requirement in binary.symbols_version_requirement:
        for auxiliary in requirement.get_auxiliary_symbols():
            try:
                family, _, number = _text(auxiliary.name).rpartition("_")
            except UnicodeDecodeError:
                continue
            version = _number(number)
            if version and family in {"GLIBC", "GLIBCXX", "CXXABI", "GCC", "GOMP", "OMP"}:
                newest[family] = max(newest.get(family, ()), version)
    return newest


def _number(text: str) -> tuple[int, ...]:
    parts = text.split(".")
    return tuple(int(part) for part in parts) if all(part.isdecimal() for part in parts) else ()


def _dotted(number: tuple[int, ...]) -> str:
    return ".".join(map(str, number))


def _manylinux(versions: dict[str, tuple[int, ...]]) -> str | None:
    wanted = [versions.get(name, ()) for name in ("GLIBC", "GLIBCXX", "CXXABI")]
    for platform in _MANYLINUX:
        if all(need <= has for need, has in zip(wanted, platform, strict=True)):
            return f"manylinux_{platform[0][0]}_{platform[0][1]}"
    return None


def _kind(segment: Any) -> str:  # noqa: ANN401
    return str(segment.type).rpartition(".")[2]


def _rwx(segment: Any) -> bool:  # noqa: ANN401
    flags = int(segment.flags.value)
    return _kind(segment) == "LOAD" and flags & 3 == 3  # noqa: PLR2004  # PF_X and PF_W


def _executable_stack(binary: Any) -> bool:  # noqa: ANN401
    stacks = [segment for segment in binary.segments if _kind(segment) == "GNU_STACK"]
    return not stacks or any(int(segment.flags.value) & 1 for segment in stacks)


def _compilers(binary: Any) -> list[str]:  # noqa: ANN401
    section = next((s for s in binary.sections if s.name == ".comment"), None)
    if section is None:
        return []
    texts = bytes(section.content)[: 64 * 1024].split(b"\0")
    return sorted({_text(text) for text in texts if text})[:20]


def _build_id(binary: Any) -> str | None:  # noqa: ANN401
    for note in binary.notes:
        if str(note.type).endswith("GNU_BUILD_ID") and str(note.name).rstrip("\0") == "GNU":
            return bytes(note.description)[:64].hex()
    return None


def _overlay(elf: Elf) -> int:
    """Return the bytes behind everything that a header names; zeros that only pad are none."""
    (table,) = struct.unpack_from("<Q", elf.data, _SHOFF_AT)
    ends = [table + len(elf.sections) * _SHDR_SIZE]
    ends += [s.offset + s.size for s in elf.sections if s.type not in NOBITS]
    ends += [s.offset + s.file_size for s in elf.segments]
    rest = elf.data[max(ends) :]
    is_padding = len(rest) < _PADDING and not any(rest)
    return 0 if is_padding else len(rest)


def _constants(elf: Elf) -> list[tuple[int, int]]:
    # Machine code holds no texts, and those in device code are the business of the device half.
    # Without section headers everything is looked at.
    ranges = [
        (section.offset, section.offset + section.size)
        for section in elf.sections
        if section.type == _SHT_PROGBITS
        and not section.flags & _SHF_EXECINSTR
        and not section.name.startswith(_DEVICE_SECTIONS)
    ]
    return ranges or [(0, len(elf.data))]
