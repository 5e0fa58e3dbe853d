"""Host facts of a library that was built for 64-bit Arm, from a wheel on PyPI.

Not run by default: the wheel is downloaded. `make test-corpus` runs it.
"""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from kgate_scanner.paths import scan_path

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.corpus


def test_a_library_built_for_aarch64_has_every_fact(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--python-version"]
    command += ["3.11", "--platform", "manylinux2014_aarch64", "--only-binary=:all:"]
    subprocess.run([*command, "--dest", tmp_path, "cffi==2.0.0"], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    (found,) = scan_path(wheel)
    (host,) = (facts["host"] for facts in found.report.files.values() if "host" in facts)
    assert host["machine"] == "aarch64"
    assert host["python"]["init"] == ["PyInit__cffi_backend"]
    assert "libc.so.6" in host["needed"]
    assert host["manylinux"] == "manylinux_2_17"
    assert host["versions"]["GLIBC"]
    assert host["exports"] >= 1
    assert host["imports"] > 50
    assert found.report.complete
    assert found.report.summary["host"]["machines"] == ["aarch64"]
