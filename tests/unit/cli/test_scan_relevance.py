"""`kgate scan --against` and `--gpus`."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from kgate_cli.main import main
from tests.unit.scanner.device.builders import Kernel, cubin, entry, fatbin, host

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

KERNELS = (Kernel("a"),)


def library(folder: Path) -> Path:
    path = folder / "lib.so"
    path.write_bytes(host(fatbin(entry(cubin(90, KERNELS)), entry(cubin(80, KERNELS), arch=80))))
    return path


def test_what_the_sbom_leaves_out_is_named_and_exits_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = library(tmp_path)
    own = {"alg": "SHA-256", "content": hashlib.sha256(path.read_bytes()).hexdigest()}
    sbom = tmp_path / "vendor.cdx.json"
    sbom.write_text(json.dumps({"bomFormat": "CycloneDX", "components": [{"hashes": [own]}]}))
    assert main(["scan", str(path), "--against", str(sbom)]) == 1
    out = capsys.readouterr().out
    assert "does not list 2 of" in out
    assert "cubin sm_80" in out
    assert main(["scan", str(path), "--against", str(sbom), "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert [item["target"] for item in said["unlisted"]] == ["sm_90", "sm_80"]


def test_code_for_other_gpus_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scan", str(library(tmp_path)), "--gpus", "sm_90"]) == 0
    assert "(50.0 %) is for none of sm_90: sm_80" in capsys.readouterr().out


def test_a_gpu_that_is_none_is_a_usage_error_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["scan", str(library(tmp_path)), "--gpus", "H100"]) != 0
    assert "write it like sm_90" in capsys.readouterr().err
