"""Attest one variant from stored evidence: what a mirror publishes and a pod believes.

An `Attestor` is told *which* variant to attest, never *what* to say: it reads the evidence itself,
checks that it belongs together and that the decision allowed the variant, and only then signs.
Evidence that is missing or denied is refused. Deciding and storing happen elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Protocol

from kgate_core.clock import write_time
from kgate_core.digest import Digest
from kgate_core.errors import Conflict, NotFound
from kgate_core.keys import Algorithm
from kgate_core.vsa import Vsa
from kgate_core.vulnerabilities import VulnerabilityReport
from kgate_signer.modelsigning import sign_model
from kgate_signer.predicates import (
    import_statement,
    qualification_statement,
    sbom_statement,
    vsa_statement,
    vulns_statement,
)
from kgate_signer.sign import sign_statement

if TYPE_CHECKING:
    from datetime import datetime

    from kgate_core.evidence import Decision
    from kgate_core.kernel import KernelId
    from kgate_core.manifest import Manifest
    from kgate_signer.keys import KeyProvider
    from kgate_signer.predicates import ImportRecord
    from kgate_signer.timestamps import Stamper

VSA_LIFETIME: Final = timedelta(days=90)  # how long a decision counts before it is taken anew


@dataclass(frozen=True, slots=True)
class StoredEvidence:
    """What the catalog holds about one served variant when it is to be attested."""

    kernel: KernelId
    """As served: its revision is the one that clients see."""
    lane: str
    manifest: Manifest
    metadata_id: str
    """The `id` of metadata.json."""
    depends: tuple[Digest, ...]
    """Manifest digests of the kernels this one loads."""
    imported: ImportRecord
    decision: Decision
    sbom: bytes | None = None
    """The stored CycloneDX document."""
    vulnerabilities: bytes | None = None
    """The stored report about the advisories of one feed."""
    qualification: bytes | None = None
    """The stored result of a run on somebody's machine, as it was submitted."""


class EvidenceStore(Protocol):
    """Where evidence lies; the caller of an `Attestor` can name it but not bring it."""

    def evidence(self, kernel: KernelId, lane: str, /) -> StoredEvidence | None:
        """Return what is stored about a served variant in a lane, or None."""


@dataclass(frozen=True, slots=True)
class Attestations:
    """Signed bundles about one variant, ready to be published together."""

    vsa: bytes
    imported: bytes
    sbom: bytes | None
    model: bytes | None = None
    """For `model_signing verify key`; pods pass it over."""
    qualification: bytes | None = None
    vulnerabilities: bytes | None = None

    @property
    def bundles(self) -> tuple[bytes, ...]:
        """All of them; the decision comes first."""
        found = (self.sbom, self.vulnerabilities, self.qualification)
        rest = (self.imported, *found, self.model)
        return (self.vsa, *(bundle for bundle in rest if bundle is not None))


@dataclass(frozen=True, slots=True)
class Attestor:
    """Signs for one site; what it signs comes from its evidence store."""

    site: str
    key: KeyProvider
    store: EvidenceStore
    lifetime: timedelta = VSA_LIFETIME
    stamper: Stamper | None = None
    """An independent authority that dates the decision, so that its key may run out."""
    ingest: KeyProvider | None = None
    """Signs what was found; the key that decides does it unless there is one of this role."""

    def attest(self, kernel: KernelId, lane: str, manifest: Digest, now: datetime) -> Attestations:
        """Sign everything that was found about a served variant, and the decision.

        `manifest` is what the caller believes to publish. Raises NotFound without evidence and
        Conflict if the evidence is about something else or the decision was no.
        """
        found = self._evidence(kernel, lane, manifest)
        finder = self.ingest or self.key
        imported = sign_statement(import_statement(found.manifest, found.imported), finder)
        sbom = qualification = vulnerabilities = None
        if found.sbom is not None:
            sbom = sign_statement(sbom_statement(found.manifest, found.sbom), finder)
        if found.qualification is not None:
            result = qualification_statement(found.manifest, found.qualification)
            qualification = sign_statement(result, finder)
        if found.vulnerabilities is not None:
            compared = vulns_statement(
                found.manifest, found.vulnerabilities, found.decision.decided_at
            )
            vulnerabilities = sign_statement(compared, finder)
        said = (imported, sbom, vulnerabilities, qualification)
        inputs = tuple(Digest.of(data) for data in said if data is not None)
        model = None
        if self.key.public_key().algorithm is Algorithm.ECDSA_P256:
            model = sign_model(found.manifest, str(kernel.repo), self.key)
        vsa = self._sign_vsa(found, inputs, now)
        return Attestations(vsa, imported, sbom, model, qualification, vulnerabilities)

    def approve(
        self,
        kernel: KernelId,
        lane: str,
        manifest: Digest,
        inputs: tuple[Digest, ...],
        now: datetime,
    ) -> bytes:
        """Sign the decision alone, as the second and human-held role does; raises as `attest`.

        `inputs` are the digests of the attestations that the person looked at.
        """
        return self._sign_vsa(self._evidence(kernel, lane, manifest), inputs, now)

    def _evidence(self, kernel: KernelId, lane: str, manifest: Digest) -> StoredEvidence:
        name = f"{kernel.repo}@{kernel.revision.short} {kernel.variant} in lane {lane}"
        found = self.store.evidence(kernel, lane)
        if found is None:
            raise NotFound(f"there is no evidence for {name}", hint="admit it with `kgate sync`")
        if found.kernel != kernel or found.lane != lane:
            raise Conflict(f"the evidence for {name} is about {found.kernel.purl}, {found.lane}")
        if found.manifest.digest != manifest:
            raise Conflict(
                f"the evidence for {name} is about {found.manifest.digest}, not {manifest}"
            )
        record = found.imported
        came = (record.origin, record.repo_type, record.repo, record.variant)
        if came != (kernel.origin, kernel.repo_type, kernel.repo, kernel.variant):
            raise Conflict(f"what is stored for {name} came as {record.repo}, {record.variant}")
        if not found.decision.allowed:
            denied = ", ".join(result.rule for result in found.decision.denials)
            raise Conflict(f"{name} was not allowed: {denied or 'no rule was asked'}")
        return found

    def _sign_vsa(self, found: StoredEvidence, inputs: tuple[Digest, ...], now: datetime) -> bytes:
        valid_until = found.decision.decided_at + self.lifetime
        if now >= valid_until:
            # Signing again must not make an old decision young.
            raise Conflict(
                f"the decision about {found.kernel.repo} counted until {write_time(valid_until)}",
                hint="let the policy decide anew with `kgate sync`",
            )
        vsa = Vsa(
            kernel=found.kernel,
            upstream_revision=found.imported.upstream_revision,
            lane=found.lane,
            site=self.site,
            manifest=found.manifest.digest,
            metadata_id=found.metadata_id,
            depends=found.depends,
            policy_uri=f"kgate:policy/{found.decision.policy}",
            policy_digest=found.decision.policy_digest,
            passed=True,
            verified_at=found.decision.decided_at,
            valid_until=valid_until,
            inputs=inputs,
            feed=_feed_of(found.vulnerabilities),
        )
        statement = vsa_statement(found.manifest, vsa)
        if (stamper := self.stamper) is None:
            return sign_statement(statement, self.key)
        return sign_statement(statement, self.key, stamp=lambda data: stamper.stamp(data, now))


def _feed_of(vulnerabilities: bytes | None) -> Digest | None:
    """Return the feed that a stored report compared with."""
    if vulnerabilities is None:
        return None
    return VulnerabilityReport.from_bytes(vulnerabilities).feed
