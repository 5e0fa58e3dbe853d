"""A good variant to try policies on: it passes every built-in rule of every profile.

Policy tests change the one thing that they are about. It is made up: no such kernel exists, and
nothing is read or fetched.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, Final

from kgate_core.clock import read_time
from kgate_core.digest import Digest
from kgate_core.evidence import Evidence, ScanReport, Severity
from kgate_core.kernel import KernelId, KernelRef, RepoType, Revision
from kgate_core.manifest import FileEntry, Manifest
from kgate_core.vulnerabilities import Status, Vulnerability, VulnerabilityReport

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kgate_core.evidence import Facts, Finding

ORIGIN: Final = "https://hub.example.org"
REPO: Final = "example/activation"
COMMIT: Final = "0123456789abcdef0123456789abcdef01234567"
VARIANT: Final = "torch213-cxx11-cu130-x86_64-linux"
LANE: Final = "production"
FILES: Final = ("__init__.py", "_activation_cuda_0123456.abi3.so", "metadata.json")
FETCHED: Final = "2026-11-01T00:00:00Z"
_OID: Final = "89abcdef" * 5


QUALIFICATION: Final[dict[str, Any]] = {
    "passed": True,
    "maxAbsErrorPpm": 12,
    "maxRelErrorPpm": 80,
    "speedupPpm": 1_400_000,
    "submitter": "lab@example.org",
    "gpu": "NVIDIA H200",
    "finishedAt": "2026-11-01T00:00:00Z",
    "digest": str(Digest.of(b"qualification")),
}


def sample_metadata() -> Facts:
    """Return the metadata.json of the sample."""
    return {
        "id": "_activation_cuda_0123456",
        "name": "activation",
        "version": 1,
        "license": "Apache-2.0",
        "source": "https://github.com/example/activation",
        "backend": {"type": "cuda", "archs": ["8.0", "9.0"]},
        "python-depends": [],
        "kernel-depends": [],
        "digest": {
            "algorithm": "sha256",
            "files": {path: _base64(path) for path in FILES if path != "metadata.json"},
        },
        "provenance": {
            "kernel-builder": {"version": "0.17.2", "commit": COMMIT, "dirty": False},
            "kernel": {"commit": COMMIT, "dirty": False},
        },
    }


def _base64(path: str) -> str:
    return base64.b64encode(bytes.fromhex(Digest.of(path.encode()).hex)).decode()


def sample_vulnerabilities(
    subject: Digest, *found: Vulnerability, date: str = FETCHED
) -> VulnerabilityReport:
    """Return what advisories say about the sample: one is set aside, and whatever else is given."""
    aside = Vulnerability(
        "CVE-2026-0001",
        Severity.HIGH,
        Status.NOT_AFFECTED,
        "vendor",
        "cuda toolkit 12.8",
        places=(FILES[1],),
        justification="vulnerable_code_not_present",
        author="kgate-advisories/1 (rule tools-only)",
    )
    return VulnerabilityReport(
        subject,
        "kgate-advisories/1",
        Digest.of(b"feed"),
        read_time(date, what="sample"),
        (aside, *found),
    )


def sample_manifest(paths: Iterable[str]) -> Manifest:
    """Return a manifest of files whose content is their own path."""
    return Manifest.of(FileEntry(path, len(path), Digest.of(path.encode())) for path in paths)


def sample_evidence(  # noqa: PLR0913  # each part of a sample can be changed on its own
    *,
    repo: str = REPO,
    variant: str = VARIANT,
    lane: str = LANE,
    paths: Iterable[str] = FILES,
    metadata: Facts | None = None,
    findings: tuple[Finding, ...] = (),
    summary: Facts | None = None,
    imported: Mapping[str, Any] | None = None,
    scanned: bool = True,
    stated: Mapping[str, Any] | None = None,
) -> Evidence:
    """Return evidence about the sample, with the given parts changed."""
    kernel = KernelId(ORIGIN, RepoType.KERNEL, KernelRef.parse(repo), Revision(COMMIT), variant)
    manifest = sample_manifest(paths)
    scan = ScanReport(
        scanner="kgate-scanner/sample",
        subject=manifest.digest,
        files={entry.path: {"kind": "other"} for entry in manifest.files},
        summary=summary or {},
        findings=findings,
    )
    return Evidence(
        kernel=kernel,
        lane=lane,
        manifest=manifest,
        metadata=sample_metadata() if metadata is None else metadata,
        scan=scan if scanned else None,
        sbom=Digest.of(b"sample"),
        imported=_import_record(kernel, manifest) | dict(imported or {}),
        asked={"repo": repo, "version": 1},
        stated={
            "qualification": QUALIFICATION,
            "images": [],
            "vulnerabilities": sample_vulnerabilities(manifest.digest).to_json(),
        }
        | dict(stated or {}),
    )


def _import_record(kernel: KernelId, manifest: Manifest) -> Facts:
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
                "oid": _OID,
                "lfs": False,
            }
            for entry in manifest.files
        ],
        "fetchedAt": FETCHED,
        "scannedAt": FETCHED,
        "card": {"size": 900, "fields": ["license", "tags"], "headings": ["Usage"]},
        "upstreamSignature": {"status": "verified", "detail": "build.yaml@refs/heads/main"},
        "depends": [],
        "unmet": [],
        "redirects": False,
    }
