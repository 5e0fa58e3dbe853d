from __future__ import annotations

import struct

import pytest

from kgate_scanner import hostcopy
from kgate_scanner.elf import Elf
from kgate_scanner.host import HostFacts, read_host
from tests.scankit import CLEAN, build_library


def read(data: bytes) -> HostFacts:
    return read_host(Elf(memoryview(data)), "a.so")


def rules(data: bytes) -> set[str]:
    return {finding.rule for finding in read(data).findings}


def test_a_plain_library_has_facts_and_no_findings() -> None:
    source = 'int puts(const char *); int f(void) { return puts(""); }'
    read_back = read(build_library(source, "-Wl,-soname,liba.so.1"))
    facts = read_back.facts
    assert read_back.findings == ()
    assert facts["machine"] == "x86_64"
    assert facts["soname"] == "liba.so.1"
    assert facts["needed"] == ["libc.so.6"]
    assert facts["exports"] == 1
    assert len(facts["buildId"]) == 40
    assert facts["compilers"][0].startswith("GCC: ")
    assert facts["hardening"] == {
        "relro": "full",
        "bindNow": True,
        "executableStack": False,
        "writableCode": 0,
        "textRelocations": False,
        "canary": False,
        "fortified": 0,
    }


PROCESSES = 'int system(const char *); int f(void) { return system("id"); }'
RISKS = {
    "KG-HOST-003": (CLEAN, ("-Wl,-z,execstack",)),
    "KG-HOST-006": (CLEAN, ("-Wl,-z,norelro",)),
    "KG-HOST-007": (PROCESSES, ()),
    "KG-HOST-008": ("int socket(int, int, int); int f(void) { return socket(2, 1, 0); }", ()),
    "KG-HOST-009": ("void *dlopen(char *, int); void *f(void) { return dlopen(0, 1); }", ()),
    "KG-HOST-010": (
        "int mprotect(void *, long, int); int f(void) { return mprotect(f, 1, 7); }",
        (),
    ),
    "KG-HOST-011": (CLEAN, ("-Wl,--audit,liba.so",)),
    "KG-HOST-015": ("void *malloc(long n) { return 0; }", ()),
    "KG-HOST-017": ('const char *f(void) { return "/home/build/kernels/relu.cpp"; }', ()),
    "KG-HOST-018": ('const char *f(void) { return "https://example.org/x"; }', ()),
    "KG-HOST-020": ('const char i[] __attribute__((section(".interp"))) = "/lib/ld.so";', ()),
    "KG-HOST-021": ('const char *f(void) { return "AWS_SECRET_ACCESS_KEY"; }', ()),
}


@pytest.mark.parametrize("expected", RISKS)
def test_each_risk_of_host_code_is_found_and_nothing_else(expected: str) -> None:
    source, flags = RISKS[expected]
    # The glibc of the machine that runs the tests may be a new one.
    assert rules(build_library(source, *flags)) - {"KG-HOST-016"} == {expected}


def test_text_relocations_are_found() -> None:
    source = "extern int other; int *f(void) { return &other; }"
    flags = ("-fno-pic", "-mcmodel=large", "-Wl,-z,notext")
    assert "KG-HOST-005" in rules(build_library(source, *flags))


def test_a_segment_that_is_writable_and_executable_is_found() -> None:
    data = bytearray(build_library())
    (table,) = struct.unpack_from("<Q", data, 32)
    struct.pack_into("<I", data, table + 4, 7)  # p_flags of the first segment
    assert "KG-HOST-004" in rules(bytes(data))


def test_undefined_symbols_without_a_type_are_seen() -> None:
    # LIEF's own list of imports leaves these out.
    source = 'asm(".globl f\\nf: jmp system@PLT\\n");'
    facts = read(build_library(source)).facts
    assert facts["dangerous"] == {"processes": ["system"]}


def test_the_python_and_torch_interfaces_are_told_by_symbols() -> None:
    source = """
    void *PyLong_FromLong(long); int _Py_Dealloc(void *);
    int torch_call_dispatcher(void); int aoti_torch_empty(void);
    void *PyInit__relu(void) {
        torch_call_dispatcher(); aoti_torch_empty(); _Py_Dealloc(0);
        return PyLong_FromLong(1);
    }"""
    facts = read(build_library(source)).facts
    assert facts["python"] == {
        "init": ["PyInit__relu"],
        "imports": 2,
        "private": ["_Py_Dealloc"],
        "abi3": False,
    }
    elf = Elf(memoryview(build_library(source)))
    assert read_host(elf, "lib/_relu.abi3.so").facts["python"]["abi3"]
    assert facts["torchAbi"] == "stable"
    cxx = "int _ZN2at5emptyEv(void); int f(void) { return _ZN2at5emptyEv(); }"
    assert read(build_library(cxx)).facts["torchAbi"] == "cxx"


def test_the_newest_symbol_versions_say_which_manylinux_it_is() -> None:
    source = 'int f(void) { return 0; } asm(".symver g, stat@GLIBC_2.33\\n.globl h\\nh: jmp g\\n");'
    facts = read(build_library(source)).facts
    assert facts["versions"]["GLIBC"] == "2.33"
    assert facts["manylinux"] == "manylinux_2_34"
    assert {finding.rule for finding in read(build_library(source)).findings} == {"KG-HOST-016"}


def test_run_paths_are_listed_entry_by_entry() -> None:
    facts = read(build_library(CLEAN, "-Wl,-rpath,$ORIGIN/lib:/opt/lib")).facts
    assert facts["runpath"] + facts["rpath"] == ["$ORIGIN/lib", "/opt/lib"]


@pytest.mark.parametrize(
    ("field", "format_", "value", "said"),
    [
        (32, "<Q", 24, "are shown"),  # sh_size: one symbol only
        (16, "<Q", 8, "is not the symbol table of the loader"),  # sh_addr
    ],
)
def test_section_headers_that_hide_symbols_are_found(
    field: int, format_: str, value: int, said: str
) -> None:
    source = PROCESSES
    data = bytearray(build_library(source))
    elf = Elf(memoryview(bytes(data)))
    number = next(section.number for section in elf.sections if section.name == ".dynsym")
    (table,) = struct.unpack_from("<Q", data, 40)
    struct.pack_into(format_, data, table + 64 * number + field, value)
    found = [f for f in read(bytes(data)).findings if f.rule == "KG-HOST-014"]
    assert any(said in finding.seen for finding in found)


def test_a_library_without_section_headers_is_found_and_still_read() -> None:
    data = bytearray(build_library(PROCESSES))
    struct.pack_into("<Q", data, 40, 0)
    struct.pack_into("<HHH", data, 58, 0, 0, 0)
    found = rules(bytes(data))
    assert {"KG-HOST-014", "KG-HOST-007"} <= found


@pytest.mark.parametrize("data", [b"\x7fELF", b"\x7fELF\x02\x01\x01" + bytes(57)])
def test_what_is_no_library_is_said_to_be_none(data: bytes) -> None:
    read_back = read(data)
    assert read_back.facts == {}
    assert [finding.rule for finding in read_back.findings] == ["KG-HOST-019"]


LARGE = (
    "#include <stdlib.h>\n"
    "static const char table[3 << 20] = {1}; char grown[3 << 20] = {1};\n"
    "int f(int i) { return system(table + i) + grown[i]; }\n"
    "__attribute__((constructor)) void g(void) { grown[1] = 2; }\n"
)


def test_a_copy_without_payloads_tells_the_same_as_the_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = build_library(LARGE)
    whole = read(data)
    assert len(hostcopy.host_copy(Elf(memoryview(data)))) == len(data)
    monkeypatch.setattr(hostcopy, "WHOLE_BELOW", 0)
    copied = hostcopy.host_copy(Elf(memoryview(data)))
    assert len(copied) < 64 * 1024 < 6 << 20 < len(data)
    assert Elf(memoryview(copied)).damage == []
    assert read(data) == whole
    assert whole.facts["constructors"] == 2


def test_nothing_that_the_dynamic_section_points_at_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    # A dynamic string table that claims to be program data, and large.
    monkeypatch.setattr(hostcopy, "WHOLE_BELOW", 0)
    monkeypatch.setattr(hostcopy, "_CUT_FROM", 16)
    monkeypatch.setattr(hostcopy, "_PAGE", 1)
    data = bytearray(build_library(LARGE))
    elf = Elf(memoryview(bytes(data)))
    (table,) = struct.unpack_from("<Q", data, 40)
    for name in (".dynstr", ".dynsym", ".gnu.version_r"):
        (section,) = elf.named(name)
        struct.pack_into("<I", data, table + 64 * section.number + 4, 1)  # SHT_PROGBITS
    facts = read(bytes(data)).facts
    assert facts["needed"] == ["libc.so.6"]
    assert facts["dangerous"] == {"processes": ["system"]}
    assert facts["versions"]["GLIBC"]


def test_a_file_whose_tables_are_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostcopy, "WHOLE_BELOW", 0)
    monkeypatch.setattr(hostcopy, "WHOLE_MOST", 1000)
    read_back = read(build_library())
    assert [finding.rule for finding in read_back.findings] == ["KG-HOST-019"]
    assert "too large" in read_back.findings[0].seen


def test_bytes_behind_the_library_are_found_and_padding_is_none() -> None:
    assert rules(build_library() + b"PK\3\4 an archive") == {"KG-HOST-022"}
    assert rules(build_library() + bytes(4000)) == set()
    assert rules(build_library() + bytes(100_000)) == {"KG-HOST-022"}


def test_what_the_compiler_did_for_safety_and_for_debuggers_is_told() -> None:
    source = """
    #include <string.h>
    static int ready;
    __attribute__((constructor)) static void start(void) { ready = 1; }
    int f(const char *from, int n) { char to[16]; memcpy(to, from, n); return to[ready]; }
    """
    flags = ("-O2", "-g", "-fstack-protector-all", "-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2")
    plain = read(build_library(source)).facts
    safe = read(build_library(source, *flags)).facts
    assert (plain["hardening"]["canary"], plain["hardening"]["fortified"]) == (False, 0)
    assert (safe["hardening"]["canary"], safe["hardening"]["fortified"]) == (True, 1)
    assert (plain["debug"], safe["debug"]) == (False, True)
    assert safe["constructors"] >= 1


def test_a_library_for_another_processor_is_read_like_any_other() -> None:
    data = bytearray(build_library())
    data[18:20] = (183).to_bytes(2, "little")  # e_machine of AArch64
    facts = read(bytes(data)).facts
    assert facts["machine"] == "aarch64"
    assert facts["hardening"]["relro"] == "full"
