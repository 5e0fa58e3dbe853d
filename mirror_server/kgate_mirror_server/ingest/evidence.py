"""What is kept about a variant, as blobs, and read back: for rules, for signing, for auditors.

Every piece is a JSON document in the blob store; the intake names them by kind. The signer reads
through `EvidenceRoom`, so what is signed is what was stored, not what a caller holds in its
hands. Nothing is decided here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from kgate_core import strictjson
from kgate_core.clock import read_time, write_time
from kgate_core.digest import Digest
from kgate_core.errors import Conflict, InvalidInput, NotFound
from kgate_core.evidence import Decision, ScanReport
from kgate_core.kernel import KernelRef, RepoType, Revision, folder_of
from kgate_core.manifest import Manifest
from kgate_core.vulnerabilities import VulnerabilityReport
from kgate_mirror_server.ports import EvidenceKind, IntakeState, ServedFile
from kgate_signer.attest import StoredEvidence
from kgate_signer.predicates import (
    ImportRecord,
    OidKind,
    UpstreamOid,
    UpstreamSignature,
    UpstreamVerdict,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from kgate_core.evidence import Facts
    from kgate_core.kernel import KernelId
    from kgate_mirror_server.catalog.sql import KeptEvidence
    from kgate_mirror_server.ports import BlobStore

_WHOLE: Final = (  # stated as they were stored
    EvidenceKind.SBOM,
    EvidenceKind.VULNERABILITIES,
    EvidenceKind.QUALIFICATION,
)
MAX_DOCUMENT: Final = 256 * 1024**2  # bytes; a scan report over thousands of kernels


class Intake(Protocol):
    """Where the catalog keeps which evidence belongs to which variant, published or not."""

    def keep_evidence(
        self,
        kernel: KernelId,
        lane: str,
        manifest: Digest,
        evidence: Mapping[EvidenceKind, Digest],
        state: IntakeState,
        now: datetime,
    ) -> None:
        """Keep which documents belong to a variant, replacing what was kept."""
        ...

    def evidence(self, kernel: KernelId, lane: str) -> KeptEvidence | None:
        """Return what is kept about a variant, or None."""
        ...


@dataclass(frozen=True, slots=True)
class Imported:
    """How a variant came: what was asked for, what upstream promised, what was checked."""

    origin: str
    repo_type: RepoType
    repo: KernelRef
    revision: Revision
    pin: str
    variant: str
    files: tuple[ServedFile, ...]
    fetched_at: datetime
    signature: Facts
    """The publisher's own signature: status and detail."""
    depends: tuple[str, ...] = ()
    """Kernels that it loads and that are published in its lane, as `org/name@commit`."""
    depends_manifests: tuple[Digest, ...] = ()
    """Manifest digests of all their published variants."""
    unmet: tuple[str, ...] = ()
    """Paths to needed kernels that are not published, each with the reason."""
    redirects: bool = False
    """True if upstream's kernel-status.toml sends some clients to another repository."""
    card: Facts | None = None
    """Size, field names and headings of the commit's README.md; None if it has none."""
    scanned_at: datetime | None = None
    """When the scan was made that goes with it; it may be older than the import."""

    def to_json(self) -> Facts:
        """Return the record as policies see it."""
        return {
            "origin": self.origin,
            "repoType": str(self.repo_type),
            "repo": str(self.repo),
            "revision": str(self.revision),
            "pin": self.pin,
            "variant": self.variant,
            "files": [
                {
                    "path": file.path,
                    "size": file.size,
                    "digest": str(file.digest),
                    "oid": file.oid,
                    "lfs": file.lfs,
                }
                for file in self.files
            ],
            "fetchedAt": write_time(self.fetched_at),
            "upstreamSignature": self.signature,
            "depends": list(self.depends),
            "dependsManifests": [str(digest) for digest in self.depends_manifests],
            "unmet": list(self.unmet),
            "redirects": self.redirects,
            **({} if self.card is None else {"card": self.card}),
            **({} if self.scanned_at is None else {"scannedAt": write_time(self.scanned_at)}),
        }

    @classmethod
    def from_json(cls, data: Any) -> Imported:  # noqa: ANN401  # JSON from our own store
        """Read what `to_json` wrote; raises InvalidInput."""
        what = "import record"
        return cls(
            strictjson.take(data, "origin", str, what=what),
            RepoType(strictjson.take(data, "repoType", str, what=what)),
            KernelRef.parse(strictjson.take(data, "repo", str, what=what)),
            Revision(strictjson.take(data, "revision", str, what=what)),
            strictjson.take(data, "pin", str, what=what),
            strictjson.take(data, "variant", str, what=what),
            tuple(
                ServedFile(
                    strictjson.take(item, "path", str, what=what),
                    strictjson.take(item, "size", int, what=what),
                    Digest.parse(strictjson.take(item, "digest", str, what=what)),
                    strictjson.take(item, "oid", str, what=what),
                    strictjson.take(item, "lfs", bool, what=what),
                )
                for item in strictjson.take(data, "files", list, what=what)
            ),
            read_time(strictjson.take(data, "fetchedAt", str, what=what), what=what),
            strictjson.take(data, "upstreamSignature", dict, what=what),
            strictjson.take_strings(data, "depends", what=what),
            tuple(
                Digest.parse(text)
                for text in strictjson.take_strings(data, "dependsManifests", what=what)
            ),
            strictjson.take_strings(data, "unmet", what=what),
            strictjson.take(data, "redirects", bool, what=what),
            strictjson.take(data, "card", dict, what=what) if "card" in data else None,
            read_time(strictjson.take(data, "scannedAt", str, what=what), what=what)
            if "scannedAt" in data
            else None,
        )

    def to_record(self) -> ImportRecord:
        """Return the record as the signer states it, with paths inside the variant."""
        prefix = folder_of(self.variant)
        return ImportRecord(
            self.origin,
            self.repo_type,
            self.repo,
            self.revision,
            self.pin,
            self.variant,
            {
                file.path.removeprefix(prefix): UpstreamOid(OidKind.LFS_SHA256, file.digest.hex)
                if file.lfs
                else UpstreamOid(OidKind.GIT_SHA1, file.oid)
                for file in self.files
            },
            self.fetched_at,
            _to_signature(self.signature),
        )


def _to_signature(facts: Facts) -> UpstreamSignature:
    """Return the verdict on the publisher's signature as the signer states it."""
    status = facts["status"]
    bundle = facts.get("bundle")
    return UpstreamSignature(
        UpstreamVerdict.REJECTED if status == "failed" else UpstreamVerdict(status),
        facts.get("detail", ""),
        facts.get("identity", ""),
        facts.get("issuer", ""),
        None if bundle is None else Digest.parse(bundle),
        tuple(Digest.parse(text) for text in facts.get("bundles", ())),
    )


class EvidenceRoom:
    """Stores evidence and reads it back; the signer's only source."""

    def __init__(self, store: BlobStore, intake: Intake) -> None:
        self._store = store
        self._intake = intake

    def keep(self, data: bytes) -> Digest:
        """Store a document and return its digest."""
        digest = Digest.of(data)
        if not self._store.has(digest):
            self._store.put(digest, len(data), [data])
        return digest

    def remember(
        self,
        kernel: KernelId,
        lane: str,
        manifest: Digest,
        found: Mapping[EvidenceKind, Digest],
        state: IntakeState,
        now: datetime,
    ) -> None:
        """Note how far a variant has come and which documents belong to it."""
        self._intake.keep_evidence(kernel, lane, manifest, found, state, now)

    def quarantine(self, kernel: KernelId, lane: str, manifest: Digest, now: datetime) -> None:
        """Note that a variant's bytes are coming in; what was known about other bytes is void."""
        kept = self._intake.evidence(kernel, lane)
        known = kept.evidence if kept is not None and kept.manifest == manifest else {}
        self.remember(kernel, lane, manifest, known, IntakeState.QUARANTINE, now)

    def found(self, kernel: KernelId, lane: str) -> Mapping[EvidenceKind, Digest] | None:
        """Return which documents belong to a variant, or None if it never came in."""
        kept = self._intake.evidence(kernel, lane)
        return kept.evidence if kept else None

    def read(self, digest: Digest) -> bytes:
        """Return a document; raises NotFound, and Conflict if its bytes are not its digest's."""
        with self._store.open(digest) as stream:
            data = stream.read(MAX_DOCUMENT + 1)
        if Digest.of(data) != digest:
            raise Conflict(f"the stored document {digest} has changed", hint="run `kgate scrub`")
        return data

    def manifest(self, found: Mapping[EvidenceKind, Digest]) -> Manifest:
        """Return the stored manifest."""
        return Manifest.parse(self.read(found[EvidenceKind.MANIFEST]))

    def metadata(self, found: Mapping[EvidenceKind, Digest]) -> Facts:
        """Return the stored metadata.json as an object; empty if it is not one."""
        return parse_metadata(self.read(found[EvidenceKind.METADATA]))

    def scan(self, found: Mapping[EvidenceKind, Digest]) -> ScanReport:
        """Return the stored scan report."""
        return ScanReport.from_bytes(self.read(found[EvidenceKind.SCAN]))

    def imported(self, found: Mapping[EvidenceKind, Digest]) -> Imported:
        """Return the stored import record."""
        data = strictjson.loads(self.read(found[EvidenceKind.IMPORT]), what="import record")
        return Imported.from_json(data)

    def vulnerabilities(self, found: Mapping[EvidenceKind, Digest]) -> VulnerabilityReport | None:
        """Return what the advisories said, None if there was no feed."""
        if EvidenceKind.VULNERABILITIES not in found:
            return None
        return VulnerabilityReport.from_bytes(self.read(found[EvidenceKind.VULNERABILITIES]))

    def stated(self, found: Mapping[EvidenceKind, Digest]) -> Facts:
        """Return what else is known about a variant, as policies are asked about it."""
        said = self.vulnerabilities(found)
        return {} if said is None else {"vulnerabilities": said.to_json()}

    def decision(self, found: Mapping[EvidenceKind, Digest]) -> Decision:
        """Return the stored decision."""
        data = strictjson.loads(self.read(found[EvidenceKind.DECISION]), what="decision")
        return Decision.from_json(data)

    def evidence(self, kernel: KernelId, lane: str) -> StoredEvidence | None:
        """Return everything about a served variant that the signer states, or None."""
        kept = self._intake.evidence(kernel, lane)
        # Only what was decided: a half-way state may still bear the decision before.
        if kept is None or kept.state is not IntakeState.DECIDED:
            return None
        found = kept.evidence
        if EvidenceKind.DECISION not in found:
            return None
        try:
            imported = self.imported(found)
            whole = {kind: self.read(found[kind]) for kind in _WHOLE if kind in found}
            return StoredEvidence(
                kernel=kernel,
                lane=lane,
                manifest=self.manifest(found),
                metadata_id=str(self.metadata(found).get("id", "")),
                depends=imported.depends_manifests,
                imported=imported.to_record(),
                decision=self.decision(found),
                sbom=whole.get(EvidenceKind.SBOM),
                vulnerabilities=whole.get(EvidenceKind.VULNERABILITIES),
                qualification=whole.get(EvidenceKind.QUALIFICATION),
            )
        except NotFound as exc:
            raise Conflict(f"evidence for {kernel.repo} is missing: {exc.message}") from exc


def parse_metadata(data: bytes) -> Facts:
    """Read upstream's metadata.json leniently: a malformed one is the scanner's finding."""
    try:
        value = strictjson.loads(data, what="metadata.json", floats=True)
    except InvalidInput:
        return {}
    return value if isinstance(value, dict) else {}
