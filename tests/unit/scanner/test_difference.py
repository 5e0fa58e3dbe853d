"""What changed between two scans, on libraries compiled and containers built for it."""

from __future__ import annotations

from kgate_scanner.difference import compare_reports
from tests.scankit import build_library, scan_bytes
from tests.unit.scanner.device.builders import Kernel, cubin, entry, fatbin, host

ONE = "int first(int a) { return a; }"
TWO = "int socket(int, int, int); int second(int a) { return socket(a, 0, 0); }"


def gpu(*entries: bytes) -> dict[str, bytes]:
    return {"lib.so": host(fatbin(*entries))}


def test_equal_bytes_differ_in_nothing() -> None:
    report = scan_bytes({"lib.so": build_library(ONE)})
    found = compare_reports(report, report)
    assert found.is_empty
    assert found.complete
    assert not found.imports
    assert found.to_json()["bytes"]["before"] == found.to_json()["bytes"]["after"]


def test_symbols_of_both_kinds_are_named() -> None:
    found = compare_reports(
        scan_bytes({"lib.so": build_library(ONE)}), scan_bytes({"lib.so": build_library(TWO)})
    )
    assert found.exports.added == ("second",)
    assert found.exports.removed == ("first",)
    assert found.imports.added == ("socket",)
    assert "KG-HOST-008 lib.so" in found.findings.added
    assert found.changed == ("lib.so",)


def test_a_new_architecture_and_its_kernels_are_named() -> None:
    old = scan_bytes(gpu(entry(cubin(90, (Kernel("a"), Kernel("b"))))))
    new = scan_bytes(
        gpu(entry(cubin(90, (Kernel("a"), Kernel("b")))), entry(cubin(80, (Kernel("c"),)), arch=80))
    )
    found = compare_reports(old, new)
    assert found.targets.added == ("sm_80",)
    assert found.images == {"sm_80": (1, 0)}
    assert found.kernels.added == ("c",)
    assert not found.kernels.removed
    assert compare_reports(new, old).images == {"sm_80": (0, 1)}


def test_a_kernel_that_needs_more_registers_is_named_with_both_numbers() -> None:
    old = scan_bytes(gpu(entry(cubin(90, (Kernel("a", registers=32),)))))
    new = scan_bytes(gpu(entry(cubin(90, (Kernel("a", registers=64),)))))
    (kernel,) = compare_reports(old, new).resources
    assert (kernel.name, kernel.target) == ("a", "sm_90")
    assert (kernel.before["registers"], kernel.after["registers"]) == (32, 64)


def test_one_file_is_compared_with_one_file_whatever_they_are_called() -> None:
    old = scan_bytes({"before.so": build_library(ONE)})
    new = scan_bytes({"after.so": build_library(ONE)})
    assert compare_reports(old, new).is_empty


def test_python_imports_and_files_are_named() -> None:
    old = scan_bytes({"a.py": b"import os\n", "b.py": b""})
    new = scan_bytes({"a.py": b"import socket\n", "c.py": b""})
    found = compare_reports(old, new)
    assert found.modules.added == ("socket",)
    assert found.modules.removed == ("os",)
    assert found.files.added == ("c.py",)
    assert found.files.removed == ("b.py",)


def test_a_report_without_names_of_symbols_is_said_to_be_incomplete() -> None:
    report = scan_bytes({"lib.so": build_library(ONE)})
    del report.files["lib.so"]["host"]["symbols"]  # as an older scanner wrote it
    assert not compare_reports(report, report).complete
