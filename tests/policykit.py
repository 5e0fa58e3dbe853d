"""Evidence to decide about: one good variant, and ways to spoil it.

`good_evidence()` passes every built-in rule of every profile; a test changes the one thing that
it is about.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from kgate_core.digest import Digest
from kgate_core.evidence import Evidence, Finding, ScanReport, Severity
from kgate_core.kernel import KernelId, KernelRef, RepoType, Revision
from kgate_core.manifest import FileEntry, Manifest
from kgate_policy.samples import sample_vulnerabilities

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
ORIGIN = "https://hub.example.org"
COMMIT = "8f3e" * 10
VARIANT = "torch213-cxx11-cu130-x86_64-linux"
LIBRARY = "_activation_cuda_0a1b2c3.abi3.so"

METADATA: dict[str, Any] = {
    "id": "_activation_cuda_0a1b2c3",
    "name": "activation",
    "version": 1,
    "license": "Apache-2.0",
    "source": "https://github.com/kernels-community/activation",
    "backend": {"type": "cuda", "archs": ["8.0", "9.0"]},
    "python-depends": [],
    "kernel-depends": [],
    "digest": {
        "algorithm": "sha256",
        "files": {"__init__.py": "unread", LIBRARY: "unread"},
    },
    "provenance": {
        "kernel-builder": {"version": "0.17.2", "commit": "ab" * 20, "dirty": False},
        "kernel": {"commit": "cd" * 20, "dirty": False},
    },
}


QUALIFICATION: dict[str, Any] = {
    "passed": True,
    "maxAbsErrorPpm": 12,
    "maxRelErrorPpm": 80,
    "speedupPpm": 1_400_000,
    "submitter": "lab@example.org",
    "gpu": "NVIDIA H200",
    "finishedAt": "2026-11-20T00:00:00Z",
    "digest": str(Digest.of(b"qualification")),
}


def manifest(*paths: str) -> Manifest:
    """Return a manifest of small files whose content is their own path."""
    return Manifest.of(FileEntry(path, len(path), Digest.of(path.encode())) for path in paths)


def scan_of(files: Manifest, *findings: Finding, complete: bool = True) -> ScanReport:
    """Return a scan report about these files."""
    return ScanReport(
        scanner="kgate-scanner/0.1.0",
        subject=files.digest,
        files={entry.path: {"kind": "other"} for entry in files.files},
        summary={},
        findings=findings,
        complete=complete,
    )


def import_record(kernel: KernelId, files: Manifest) -> dict[str, Any]:
    """Return the record of an import in which every check was made."""
    return {
        "origin": kernel.origin,
        "repoType": str(kernel.repo_type),
        "repo": str(kernel.repo),
        "revision": str(kernel.revision),
        "pin": "v1",
        "files": [
            {
                "path": entry.path,
                "size": entry.size,
                "digest": str(entry.digest),
                "oid": "ef" * 20,
                "lfs": False,
            }
            for entry in files.files
        ],
        "upstreamSignature": {"status": "verified", "detail": "build.yaml@refs/heads/main"},
        "scannedAt": "2026-11-20T12:00:00Z",
        "card": {"size": 900, "fields": ["license", "tags"], "headings": ["Usage"]},
    }


def good_evidence(*paths: str, repo: str = "kernels-community/activation") -> Evidence:
    """Return evidence that every profile allows."""
    files = manifest(*(paths or ("__init__.py", LIBRARY, "metadata.json")))
    kernel = KernelId(ORIGIN, RepoType.KERNEL, KernelRef.parse(repo), Revision(COMMIT), VARIANT)
    return Evidence(
        kernel=kernel,
        lane="production",
        manifest=files,
        metadata=copy.deepcopy(METADATA),
        scan=scan_of(files),
        sbom=Digest.of(b"sbom"),
        imported=import_record(kernel, files),
        asked={"repo": repo, "version": 1},
        stated={
            "qualification": QUALIFICATION,
            "images": [],
            "vulnerabilities": sample_vulnerabilities(files.digest).to_json(),
        },
    )


def with_findings(*findings: Finding) -> Evidence:
    """Return good evidence, but for these findings."""
    good = good_evidence()
    return replace(good, scan=scan_of(good.manifest, *findings))


def finding(rule: str, severity: Severity = Severity.HIGH, path: str = LIBRARY) -> Finding:
    """Return a finding as the scanner would write it."""
    return Finding(rule, severity, path, f"what {rule} looks for")


def with_metadata(**changes: Any) -> Evidence:
    """Return good evidence, but for these fields of metadata.json (None removes one)."""
    good = good_evidence()
    document = good.metadata | {key.replace("_", "-"): value for key, value in changes.items()}
    return replace(good, metadata={key: v for key, v in document.items() if v is not None})


def with_import(**changes: Any) -> Evidence:
    """Return good evidence, but for these fields of the import record."""
    good = good_evidence()
    return replace(good, imported=good.imported | changes)


def with_statements(**changes: Any) -> Evidence:
    """Return good evidence, but for what is stated about it besides (None removes it)."""
    good = good_evidence()
    stated = good.stated | changes
    return replace(good, stated={key: value for key, value in stated.items() if value is not None})
