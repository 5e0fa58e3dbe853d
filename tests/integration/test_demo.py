"""The demo is the promise of the product in one command: played, and checked value by value."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

KGATE = [sys.executable, "-c", "import sys; from kgate_cli.entry import main; sys.exit(main())"]


def kgate(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*KGATE, *arguments], cwd=cwd, capture_output=True, text=True, timeout=400, check=False
    )


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    done = kgate("demo", "--out", "demo-out", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "demo-out"


def reports(demo: Path, pod: str) -> list[dict[str, Any]]:
    text = (demo / "pods" / pod / "report.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.slow
def test_the_demo_tells_what_was_observed(demo: Path) -> None:
    assert json.loads((demo / "result.json").read_text(encoding="utf-8")) == {
        "admitted": "loaded",
        "numbers_equal": True,
        "tampered": "fallback",
        "unsigned": "fallback",
        "unpinned": "fallback",
        "planted_pyc": "not executed",
        "offline_reuse": "loaded",
    }


@pytest.mark.slow
def test_every_pod_reported_its_decisions(demo: Path) -> None:
    outcomes = {
        pod: reports(demo, pod)[-1]["outcome"]
        for pod in ("admitted", "tampered", "unsigned", "unpinned", "planted")
    }
    assert outcomes == {
        "admitted": "loaded",
        "tampered": "fallback",
        "unsigned": "fallback",
        "unpinned": "fallback",
        "planted": "loaded",
    }
    assert reports(demo, "planted")[-1]["ignored_bytecode"]


@pytest.mark.slow
def test_syncing_the_demo_again_fetches_nothing(demo: Path) -> None:
    done = kgate("sync", "--locked", "--json", cwd=demo)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert result["schema"] == "kgate.dev/sync/v1"
    assert (result["fetched_bytes"], result["denied"], result["approved"]) == (0, 0, 3)


@pytest.mark.slow
def test_the_demo_leaves_evidence_to_read(demo: Path) -> None:
    variant = demo / "evidence" / "torch213-cxx11-cu130-x86_64-linux"
    bom = json.loads((variant / "sbom.cdx.json").read_text(encoding="utf-8"))
    assert bom["bomFormat"] == "CycloneDX"
    bundle = json.loads((variant / "bundle-1.sigstore.json").read_text(encoding="utf-8"))
    assert bundle["mediaType"] == "application/vnd.dev.sigstore.bundle.v0.3+json"
    scan = json.loads((variant / "scan.json").read_text(encoding="utf-8"))
    assert {"sm_80", "sm_90"} <= set(scan["summary"]["device"]["archs"]["cuda"])


@pytest.mark.slow
def test_a_folder_that_is_not_a_demo_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("the only copy")
    done = kgate("demo", "--out", str(tmp_path), cwd=tmp_path)
    assert done.returncode == 1
    assert "was not made by the demo" in done.stderr
    assert (tmp_path / "thesis.txt").exists()
