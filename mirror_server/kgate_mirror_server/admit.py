"""One pin, from the lock to a publication: fetch, scan, decide, sign, publish. Start reading here.

`admit` is the picture of the architecture in code. It publishes only what has all evidence, and
a crash anywhere leaves unreferenced blobs at worst. It resolves no pin (see `resolve`) and
serves nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from kgate_core import strictjson
from kgate_core.errors import IntegrityError, InvalidInput
from kgate_core.evidence import Evidence, Outcome, RuleResult
from kgate_core.kernel import KernelId
from kgate_mirror_server.feeds.comparing import vulnerabilities_of
from kgate_mirror_server.ingest.chains import said_upstream
from kgate_mirror_server.ingest.denials import denial_of
from kgate_mirror_server.ingest.evidence import Imported
from kgate_mirror_server.ingest.fetch import fetch_ahead, fetch_large
from kgate_mirror_server.ingest.served import served_revision
from kgate_mirror_server.ingest.statements import statements
from kgate_mirror_server.ports import (
    EvidenceKind,
    IntakeState,
    Publication,
    PublishedVariant,
)
from kgate_mirror_server.settings.targets import fleet_facts
from kgate_mirror_server.trust.approvals import kept_approvals
from kgate_mirror_server.upkeep.quota import check_quotas
from kgate_mirror_server.upkeep.shelf import publish
from kgate_signer.predicates import UpstreamVerdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from kgate_core.digest import Digest
    from kgate_core.evidence import Decision, Facts, ScanReport
    from kgate_core.kernel import Revision
    from kgate_core.lock import LockedKernel
    from kgate_mirror_server.app import Mirror
    from kgate_mirror_server.ingest.fetch import DescribedVariant
    from kgate_mirror_server.ingest.resolve import Source
    from kgate_mirror_server.settings.site import Pin
    from kgate_signer.predicates import UpstreamSignature

BROKEN_PROMISE = "bytes-as-promised"
"""Rule under which bytes are refused that are not what upstream or the lock promised."""


@dataclass(frozen=True, slots=True)
class VariantResult:
    """How one variant came out."""

    variant: str
    manifest: Digest | None
    decision: Decision | None
    """None if its bytes were refused before any rule was asked."""
    reasons: tuple[RuleResult, ...]
    """The rules that said no; empty if it was allowed."""
    evidence: Mapping[EvidenceKind, Digest]
    seen: Facts | None = None
    """What its scan said in short, if nothing has changed since; `decision` is shortened then."""

    @property
    def allowed(self) -> bool:
        """True if a policy was asked and said yes."""
        return self.decision is not None and self.decision.allowed


@dataclass(frozen=True, slots=True)
class KernelResult:
    """How one pin came out."""

    pin: Pin
    lane: str
    commit: Revision
    served: Revision | None
    """The revision that clients see; None if nothing was allowed."""
    variants: tuple[VariantResult, ...]
    fresh: bool
    """False if it was published before and nothing had to be done."""


@dataclass(frozen=True, slots=True)
class Dependencies:
    """The kernels that one loads, and whether they may be used in its lane."""

    met: tuple[str, ...] = ()
    """As `org/name@commit`, each published in the same lane."""
    manifests: tuple[Digest, ...] = ()
    """Of all their published variants."""
    unmet: tuple[str, ...] = ()
    """The path to each kernel that may not be used, with the reason."""


def admit(
    mirror: Mirror,
    source: Source,
    pin: Pin,
    locked: LockedKernel,
    dependencies: Dependencies,
    now: datetime,
    *,
    sign: bool = True,
) -> KernelResult:
    """Admit one locked pin; denied variants are recorded with their reasons.

    Without `sign` it stops before the keys: what was decided waits for `signing.sign`.
    Raises UpstreamError if bytes could not be had and Conflict if they would break a quota; then
    nothing of this pin was published.
    """
    described = source.describe(pin, locked.commit, only=locked.variants)
    coming = (file for item in described.values() for file in item.files)
    check_quotas(mirror.config.quotas, mirror.catalog.publications, locked.repo, coming)
    several = [item for name, item in described.items() if _is_locked(item, locked, name)]
    source.fetched_bytes += fetch_ahead(
        source.upstream, mirror.store, pin.ref, locked.commit, several, source.progress
    )
    asked = asked_of(mirror, pin, {n: source.metadata(item) for n, item in described.items()})
    results = [
        _admit_variant(
            mirror, source, pin, asked, locked, name, described.get(name), dependencies, now
        )
        for name in sorted(locked.variants)
    ]
    allowed = [result for result in results if result.allowed]
    served = publish_kernel(mirror, pin, locked, allowed, now) if allowed and sign else None
    for result in results:
        if not result.allowed:
            mirror.catalog.deny(denial_of(pin, locked, result, now))
    return KernelResult(pin, locked.lane, locked.commit, served, tuple(results), fresh=True)


def asked_of(mirror: Mirror, pin: Pin, siblings: Mapping[str, Facts]) -> Facts:
    """Return what a person asked for, with the fleet and the metadata of all its variants."""
    asked: Facts = pin.model_dump(mode="json", exclude_none=True)
    return asked | fleet_facts(mirror.config.targets, siblings)


def _admit_variant(  # noqa: PLR0913, PLR0917  # private: what a decision rests on
    mirror: Mirror,
    source: Source,
    pin: Pin,
    asked: Facts,
    locked: LockedKernel,
    name: str,
    described: DescribedVariant | None,
    dependencies: Dependencies,
    now: datetime,
) -> VariantResult:
    kernel = KernelId(locked.origin, locked.repo_type, locked.repo, locked.commit, name)
    try:
        described = _as_locked(described, locked, name)
        mirror.room.quarantine(kernel, locked.lane, described.manifest.digest, now)
        source.fetched_bytes += fetch_large(
            source.upstream, mirror.store, pin.ref, locked.commit, described, source.progress
        )
    except (IntegrityError, InvalidInput) as exc:
        refusal = RuleResult(BROKEN_PROMISE, Outcome.DENY, exc.message, exc.hint)
        return VariantResult(name, None, None, (refusal,), {})
    found = gather(mirror, source, pin, kernel, locked.lane, described, dependencies, now)
    manifest = described.manifest.digest
    mirror.room.remember(kernel, locked.lane, manifest, found, IntakeState.SCANNED, now)
    decision = mirror.decide(stored_evidence(mirror, kernel, locked.lane, found, asked), now)
    found[EvidenceKind.DECISION] = mirror.room.keep(strictjson.dumps(decision.to_json()))
    state = IntakeState.DECIDED if decision.allowed else IntakeState.DENIED
    mirror.room.remember(kernel, locked.lane, manifest, found, state, now)
    return VariantResult(name, described.manifest.digest, decision, decision.denials, found)


def _is_locked(described: DescribedVariant, locked: LockedKernel, name: str) -> bool:
    return locked.variants[name].manifest == described.manifest.digest


def _as_locked(
    described: DescribedVariant | None, locked: LockedKernel, name: str
) -> DescribedVariant:
    promised = locked.variants[name].manifest
    if described is None:
        raise IntegrityError(
            f"{locked.repo}@{locked.commit.short}: upstream no longer has the variant {name}",
            hint="a commit does not lose files by itself: ask the upstream's owner",
        )
    if described.manifest.digest != promised:
        raise IntegrityError(
            f"{locked.repo}@{locked.commit.short}: {name} is {described.manifest.digest} upstream,"
            f" the lock promises {promised}",
            hint="the same commit has other bytes than when it was locked: do not take it",
        )
    return described


def gather(
    mirror: Mirror,
    source: Source,
    pin: Pin,
    kernel: KernelId,
    lane: str,
    described: DescribedVariant,
    dependencies: Dependencies,
    now: datetime,
) -> dict[EvidenceKind, Digest]:
    """Scan the variant and keep every document about it; equal bytes are scanned once."""
    room, manifest = mirror.room, described.manifest
    metadata = source.metadata(described)
    before = room.found(kernel, lane) or {}
    report, scanned_at = _earlier_scan(mirror, lane, before, manifest.digest, now)
    if report is None:
        report = mirror.scan(kernel.variant, manifest)
    word = said_upstream(mirror, source.upstream, pin, kernel, manifest, now)
    imported = Imported(
        origin=kernel.origin,
        repo_type=kernel.repo_type,
        repo=kernel.repo,
        revision=kernel.revision,
        pin=pin.wanted,
        variant=kernel.variant,
        files=described.files,
        fetched_at=now,
        signature=_signature_facts(word.verdict),
        depends=dependencies.met,
        depends_manifests=dependencies.manifests,
        unmet=dependencies.unmet,
        redirects=source.redirects(pin.ref, kernel.revision),
        card=source.card(pin.ref, kernel.revision),
        scanned_at=scanned_at,
    )
    entry = manifest.by_path.get("metadata.json")
    found = {
        EvidenceKind.MANIFEST: room.keep(manifest.canonical),
        EvidenceKind.METADATA: entry.digest if entry else room.keep(b"{}"),
        EvidenceKind.IMPORT: room.keep(strictjson.dumps(imported.to_json())),
    }
    found[EvidenceKind.SCAN] = room.keep(report.to_bytes())
    found[EvidenceKind.SBOM] = room.keep(mirror.sbom(kernel, manifest, metadata, report))
    if word.document is not None:
        found[EvidenceKind.UPSTREAM] = room.keep(word.document)
    if (said := vulnerabilities_of(mirror, kernel, report)) is not None:
        found[EvidenceKind.VULNERABILITIES] = room.keep(said.to_bytes())
    same = before.get(EvidenceKind.MANIFEST) == manifest.digest
    if same and EvidenceKind.QUALIFICATION in before:
        found[EvidenceKind.QUALIFICATION] = before[EvidenceKind.QUALIFICATION]
    return found


def _earlier_scan(
    mirror: Mirror,
    lane: str,
    before: Mapping[EvidenceKind, Digest],
    manifest: Digest,
    now: datetime,
) -> tuple[ScanReport | None, datetime]:
    """Return an earlier report and when it was made, or None and now.

    It counts if this very scanner finished it over these very bytes, and not too long ago.
    """
    if EvidenceKind.SCAN not in before or before.get(EvidenceKind.MANIFEST) != manifest:
        return None, now
    report, made = mirror.room.scan(before), mirror.room.imported(before).scanned_at
    oldest = now - timedelta(days=mirror.rules.of(lane).parameters.scans_max_days)
    if made is None or made < oldest:
        return None, now
    fine = report.scanner == mirror.scanner_name and report.complete
    return (report, made) if fine else (None, now)


def stored_evidence(
    mirror: Mirror,
    kernel: KernelId,
    lane: str,
    found: Mapping[EvidenceKind, Digest],
    asked: Facts,
) -> Evidence:
    """Read back what a policy is asked about: what was stored, not what was in memory."""
    room = mirror.room
    scan = room.scan(found)
    return Evidence(
        kernel=kernel,
        lane=lane,
        manifest=room.manifest(found),
        metadata=room.metadata(found),
        scan=scan,
        sbom=found.get(EvidenceKind.SBOM),
        imported=room.imported(found).to_json(),
        asked=asked,
        stated={**room.stated(found), **statements(mirror, found, scan)},
    )


def publish_kernel(
    mirror: Mirror,
    pin: Pin,
    locked: LockedKernel,
    allowed: Sequence[VariantResult],
    now: datetime,
) -> Revision:
    """Sign every allowed variant for the served revision and publish them in one transaction."""
    wanted = {item.variant: item.manifest for item in allowed if item.manifest is not None}
    known = mirror.catalog.publications_of(locked.repo, locked.lane)
    served = served_revision(known, locked, wanted)
    variants = []
    for result in allowed:
        kernel = KernelId(locked.origin, locked.repo_type, locked.repo, served, result.variant)
        if result.manifest is None:
            raise AssertionError("an allowed variant has a manifest")
        mirror.room.remember(
            kernel, locked.lane, result.manifest, result.evidence, IntakeState.DECIDED, now
        )
        attestor = mirror.attestor_for(result.manifest, now)
        approvals = kept_approvals(mirror, kernel, locked.lane, result.manifest, now)
        signed = attestor.attest(kernel, locked.lane, result.manifest, now)
        decision, *others = (mirror.room.keep(bundle) for bundle in signed.bundles)
        variants.append(
            PublishedVariant(
                result.variant,
                result.manifest,
                mirror.room.imported(result.evidence).files,
                (decision, *approvals, *others),
                result.evidence,
            )
        )
    publish(
        mirror,
        Publication(
            locked.origin,
            locked.repo_type,
            locked.repo,
            served,
            locked.commit,
            pin.version,
            locked.lane,
            tuple(variants),
            now,
            locked.depends,
        ),
    )
    return served


def _signature_facts(found: UpstreamSignature) -> Facts:
    """Return the verdict on the publisher's signature as policies know it."""
    facts = found.to_json()
    verdict = facts.pop("verdict")
    return {"status": "failed" if verdict == UpstreamVerdict.REJECTED else verdict, **facts}
