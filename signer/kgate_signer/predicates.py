"""The statements that kgate signs about one variant, each built from checked values.

One predicate per statement, the same subjects in each: the manifest first, then its files. The
decision is SLSA's verification summary, the bill of materials is CycloneDX's own type, the way a
kernel came is kgate's `import/v1` (kgate built nothing, so it claims no build provenance), how it
did on somebody's machine is kgate's `qualification/v1`. Nothing is signed here.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from kgate_core import strictjson
from kgate_core.clock import read_time, write_time
from kgate_core.digest import Digest
from kgate_core.errors import InvalidInput
from kgate_core.statement import Statement, subjects_of
from kgate_core.vsa import PREDICATE_TYPE as VSA_TYPE
from kgate_core.vulnerabilities import VulnerabilityReport

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from kgate_core.kernel import KernelRef, RepoType, Revision
    from kgate_core.manifest import Manifest
    from kgate_core.vsa import Vsa

IMPORT_TYPE: Final = "https://kgate.dev/import/v1"
SBOM_TYPE: Final = "https://cyclonedx.org/bom"
VULNS_TYPE: Final = "https://in-toto.io/attestation/vulns/v0.2"
VULNS_EXTENSION: Final = "https://kgate.dev/vulnerabilities/v1"
QUALIFICATION_TYPE: Final = "https://kgate.dev/qualification/v1"
QUALIFICATION_SCHEMA: Final = "kgate.dev/qualification/v1"


class OidKind(StrEnum):
    """How an upstream names a file's content."""

    GIT_SHA1 = "git-sha1"
    """The git blob id: sha1 over a header and the bytes."""
    LFS_SHA256 = "lfs-sha256"
    """The sha256 that a Git LFS pointer carries."""
    NONE = "none"
    """A folder of built kernels names nothing."""


@dataclass(frozen=True, slots=True)
class UpstreamOid:
    """A file's content as the upstream named it; compared with the bytes while they came in."""

    kind: OidKind
    value: str = ""

    def to_json(self) -> dict[str, str]:
        """Return the id as a JSON object."""
        return {"kind": str(self.kind)} | ({"oid": self.value} if self.value else {})


class UpstreamVerdict(StrEnum):
    """What the upstream's own signature was found to be."""

    VERIFIED = "verified"
    MISSING = "missing"
    REJECTED = "rejected"
    NOT_CHECKED = "not-checked"


@dataclass(frozen=True, slots=True)
class UpstreamSignature:
    """The verdict on the publisher's signature, and whose it is."""

    verdict: UpstreamVerdict
    detail: str = ""
    """One sentence: what was compared or what failed."""
    identity: str = ""
    issuer: str = ""
    bundle: Digest | None = None
    """Digest of the publisher's bundle as it came."""
    bundles: tuple[Digest, ...] = ()
    """Digests of the attestations that another kgate gave along, in its order."""

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as a JSON object without empty fields."""
        fields = {
            "verdict": str(self.verdict),
            "detail": self.detail,
            "identity": self.identity,
            "issuer": self.issuer,
            "bundle": "" if self.bundle is None else str(self.bundle),
        }
        found: dict[str, Any] = {name: value for name, value in fields.items() if value}
        return found | ({"bundles": [str(d) for d in self.bundles]} if self.bundles else {})


@dataclass(frozen=True, slots=True)
class ImportRecord:
    """How one variant came here, as the store saw it."""

    origin: str
    repo_type: RepoType
    repo: KernelRef
    upstream_revision: Revision
    pin: str
    """What a person asked for: `v1`, or a commit."""
    variant: str
    oids: Mapping[str, UpstreamOid]
    """For each file of the manifest, the upstream's name of its content."""
    fetched_at: datetime
    signature: UpstreamSignature

    def to_predicate(self) -> dict[str, Any]:
        """Return the predicate object of `import/v1`."""
        return {
            "origin": self.origin,
            "repoType": str(self.repo_type),
            "repo": str(self.repo),
            "upstreamRevision": str(self.upstream_revision),
            "pin": self.pin,
            "variant": self.variant,
            "files": {path: oid.to_json() for path, oid in self.oids.items()},
            "fetchedAt": write_time(self.fetched_at),
            "upstreamSignature": self.signature.to_json(),
        }


def vsa_statement(manifest: Manifest, vsa: Vsa) -> Statement:
    """Return the decision about a manifest as a statement; raises InvalidInput on a mismatch."""
    if vsa.manifest != manifest.digest:
        raise InvalidInput(f"the decision is about {vsa.manifest}, not about {manifest.digest}")
    return Statement.of(subjects_of(manifest), VSA_TYPE, vsa.to_predicate())


def import_statement(manifest: Manifest, record: ImportRecord) -> Statement:
    """Return how a variant came as a statement; raises InvalidInput if a file is unaccounted."""
    if record.oids.keys() != manifest.by_path.keys():
        odd = min(record.oids.keys() ^ manifest.by_path.keys())
        raise InvalidInput(f"the import record and the manifest disagree about the file {odd!r}")
    for path, oid in record.oids.items():
        entry = manifest.by_path[path]
        if oid.kind is OidKind.LFS_SHA256 and oid.value != entry.digest.hex:
            raise InvalidInput(f"{path}: the upstream said sha256 {oid.value}, not {entry.digest}")
    return Statement.of(subjects_of(manifest), IMPORT_TYPE, record.to_predicate())


def sbom_statement(manifest: Manifest, bom: bytes) -> Statement:
    """Return a CycloneDX document as a statement; raises InvalidInput if it is not one."""
    what = "SBOM"
    document = strictjson.loads(bom, what=what)
    if strictjson.take(document, "bomFormat", str, what=what) != "CycloneDX":
        raise InvalidInput(f"{what}: not a CycloneDX document")
    return Statement.of(subjects_of(manifest), SBOM_TYPE, document)


def vulns_statement(manifest: Manifest, report: bytes, decided_at: datetime) -> Statement:
    """Return what advisories say about a variant; raises InvalidInput if it is about another.

    Format: in-toto's predicate `vulns` v0.2. Its `result` lists what counts; the whole report, with
    what was set aside and by whom, stands in one extension field named by a URI. It is dated by the
    decision that rests on it.
    """
    found = VulnerabilityReport.from_bytes(report)
    if found.subject != manifest.digest:
        raise InvalidInput(f"the advisories were compared with {found.subject}, not this variant")
    moment = write_time(decided_at)
    predicate = {
        "scanner": {
            "uri": "https://kgate.dev/scanner",
            "version": found.matcher,
            "db": {
                "uri": f"kgate:feed/{found.feed}",
                "version": str(found.feed),
                "lastUpdate": write_time(found.feed_date),
            },
            "result": [
                {
                    "id": item.id,
                    "severity": [{"method": "kgate", "score": item.severity.label}],
                    "annotations": [{"status": str(item.status), "seen": item.seen}],
                }
                for item in found.counting
            ],
        },
        "metadata": {"scanStartedOn": moment, "scanFinishedOn": moment},
        VULNS_EXTENSION: found.to_json(),
    }
    return Statement.of(subjects_of(manifest), VULNS_TYPE, predicate)


def qualification_statement(manifest: Manifest, result: bytes) -> Statement:
    """Return a submitted qualification result as a statement, whole and with its submitter.

    The signer vouches that it was given this result, not that the machine told the truth: that is
    the submitter's word. Raises InvalidInput if it is about other bytes, or says no submitter,
    time or outcome. Numbers are integers: nanoseconds, bytes, parts in a million.
    """
    what = "qualification result"
    document = strictjson.loads(result, what=what)
    schema = strictjson.take(document, "schema", str, what=what)
    if schema != QUALIFICATION_SCHEMA:
        raise InvalidInput(f"{what}: the schema is {schema!r}, not {QUALIFICATION_SCHEMA}")
    about = Digest.parse(strictjson.take(document, "manifest", str, what=what))
    if about != manifest.digest:
        raise InvalidInput(f"{what}: it is about {about}, not about {manifest.digest}")
    submitter = strictjson.take(document, "submitter", dict, what=what)
    if not strictjson.take(submitter, "name", str, what=f"{what}: submitter").strip():
        raise InvalidInput(f"{what}: nobody is named as its submitter")
    read_time(strictjson.take(document, "finishedAt", str, what=what), what=what)
    strictjson.take(document, "passed", bool, what=what)
    return Statement.of(subjects_of(manifest), QUALIFICATION_TYPE, document)
