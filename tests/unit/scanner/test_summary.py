from __future__ import annotations

from typing import Any

from kgate_core.kernel import Variant
from kgate_scanner.rules_files import BYTECODE, SCRIPT
from kgate_scanner.strings import read_strings
from kgate_scanner.summary import device_archs, images, summarise
from kgate_scanner.symbols import dangerous, python_imports, torch_abi
from tests.scankit import CPU

FILES: dict[str, dict[str, Any]] = {
    "b.so": {
        "kind": "elf-shared-object",
        "size": 10,
        "host": {
            "machine": "x86_64",
            "needed": ["libc.so.6"],
            "versions": {"GLIBC": "2.4", "GLIBCXX": "3.4.9"},
            "torchAbi": "stable",
            "dangerous": {"network": ["socket"], "memory": ["mprotect"]},
        },
        "device": {
            "images": [
                {"kind": "cubin", "target": "sm_90", "kernelCount": 3},
                {"kind": "hsaco", "target": "gfx90a", "kernelCount": 2},
                {"kind": "unknown", "target": "?"},
                {"kind": "ptx"},
            ]
        },
    },
    "a.so": {
        "kind": "elf-shared-object",
        "size": 5,
        "host": {"machine": "aarch64", "versions": {"GLIBC": "2.28", "GLIBCXX": "3.4.10"}},
    },
    "c.py": {"kind": "python", "size": 1, "python": {"imports": ["os"], "kernels": [{}, {}]}},
}


def test_the_summary_counts_and_joins_the_facts_of_all_files() -> None:
    findings = [BYTECODE.finding("a", "x"), SCRIPT.finding("b", "y"), SCRIPT.finding("c", "z")]
    assert summarise(FILES, findings, Variant.parse(CPU)) == {
        "variant": CPU,
        "files": 3,
        "bytes": 16,
        "kinds": {"elf-shared-object": 2, "python": 1},
        "host": {
            "libraries": 2,
            "machines": ["aarch64", "x86_64"],
            "needed": ["libc.so.6"],
            "versions": {"GLIBC": "2.28", "GLIBCXX": "3.4.10"},
            "torchAbi": ["stable"],
            "dangerous": ["mprotect", "socket"],
        },
        "device": {
            "images": 4,
            "archs": {"cuda": ["sm_90"], "rocm": ["gfx90a"]},
            "targets": ["gfx90a", "sm_90"],
            "kernels": 5,
        },
        "python": {"files": 1, "imports": ["os"], "kernels": 2},
        "findings": {"info": 0, "low": 0, "medium": 2, "high": 1, "critical": 0},
    }


def test_images_come_with_their_file_and_archs_by_backend() -> None:
    assert [(path, image["kind"]) for path, image in images(FILES)] == [
        ("b.so", "cubin"),
        ("b.so", "hsaco"),
        ("b.so", "unknown"),
        ("b.so", "ptx"),
    ]
    assert device_archs(FILES) == {"cuda": {"sm_90"}, "rocm": {"gfx90a"}}


def test_symbols_tell_groups_and_interfaces() -> None:
    assert dangerous(["puts", "fork", "execve", "bind"]) == {
        "processes": ["execve", "fork"],
        "network": ["bind"],
    }
    assert torch_abi(["puts"]) is None
    assert torch_abi(["_ZN2at6TensorC1ERKS0_", "_ZNK3c107Device3strB5cxx11Ev"]) == "cxx"
    assert torch_abi(["_ZN3c105ErrorC1ENSt7__cxx1112basic_stringE"]) == "cxx11"
    assert torch_abi(["aoti_torch_empty_strided"]) == "stable"
    assert python_imports(["PyLong_Type", "_Py_Dealloc", "Pyramid", "puts"]) == (2, ["_Py_Dealloc"])


def test_texts_are_found_where_they_begin_and_in_the_given_ranges_only() -> None:
    data = (
        b"https://a.example/x\0see http://b.example/y\0gopher://c.example/z\0"
        b"/home/me/src/kernel.cpp\0x/home/not/a/root/path\0"
        b"XHF_TOKEN\0HF_TOKEN\0HF_TOKENIZER\0"
    )
    found = read_strings(memoryview(data), [(0, len(data))])
    assert found == {
        "urls": ["http://b.example/y", "https://a.example/x"],
        "buildPaths": ["/home/me/src/kernel.cpp"],
        "credentials": ["HF_TOKEN"],
    }
    assert read_strings(memoryview(data), [(20, 30)])["urls"] == []


def test_lists_of_texts_are_bounded() -> None:
    data = b"".join(b"https://example.org/%05d\0" % number for number in range(20_000))
    assert len(read_strings(memoryview(data), [(0, len(data))])["urls"]) == 100
