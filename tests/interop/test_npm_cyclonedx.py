"""npm's CycloneDX library, a second validator with its own schemas, accepts every view."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from kgate_scanner.sbom import Spec, build_sbom
from kgate_scanner.sbom_profiles import as_bsi, as_inventory
from tests.interop import toolbox
from tests.unit.scanner.test_sbom import KERNEL, MANIFEST, METADATA, REPORT, WHEN

pytestmark = pytest.mark.matrix

PACKAGES = (
    "@cyclonedx/cyclonedx-library@10.1.0",
    "ajv@8.20.0",
    "ajv-formats@3.0.1",
    "ajv-formats-draft2019@1.6.1",
)
SCRIPT = Path(__file__).with_name("validate_cyclonedx.js")
FULL = build_sbom(KERNEL, MANIFEST, METADATA, REPORT, timestamp=WHEN)
NEWER = build_sbom(KERNEL, MANIFEST, METADATA, REPORT, timestamp=WHEN, spec=Spec.V1_7)
BSI = as_bsi(FULL, creator="sbom@example.org", sha512={})


def problem(document: bytes, version: str = "1.6") -> Any:
    """Return what the other validator has against a document, None if nothing."""
    node, folder = toolbox.node(*PACKAGES)
    done = subprocess.run(
        [node, SCRIPT, version],
        input=document,
        env={"NODE_PATH": str(folder / "node_modules")},
        capture_output=True,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("document", "version"),
    [(FULL, "1.6"), (NEWER, "1.7"), (as_inventory(FULL), "1.6"), (BSI, "1.6")],
    ids=["1.6", "1.7", "inventory", "bsi"],
)
def test_it_accepts_every_view(document: bytes, version: str) -> None:
    assert problem(document, version) is None


def test_it_refuses_what_the_schema_does_not_allow() -> None:
    broken = json.loads(FULL)
    broken["components"][0]["type"] = "kernel"
    assert problem(json.dumps(broken).encode()) is not None
