"""The signer's half of a sync: decide anew from stored evidence, sign, publish. No egress.

For sites that keep identities apart: one user fetches, scans and decides with `kgate sync
--no-sign` and can read no key; another runs this and reaches no upstream. Nothing that the first
one decided is believed: the policy is asked again about the stored evidence, and what a kernel
loads is looked up in the catalog again.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from kgate_core import strictjson
from kgate_core.errors import KgateError, NotFound
from kgate_core.kernel import KernelId
from kgate_mirror_server.admit import (
    KernelResult,
    VariantResult,
    asked_of,
    publish_kernel,
    stored_evidence,
)
from kgate_mirror_server.ingest.denials import denial_of
from kgate_mirror_server.ingest.needs import dependencies_first, dependencies_of
from kgate_mirror_server.ingest.qualification import attach
from kgate_mirror_server.ingest.sync import (
    Failure,
    SyncResult,
    check_trust,
    done_before,
    refresh_trust,
)
from kgate_mirror_server.models.intake import sign_models
from kgate_mirror_server.ports import EvidenceKind, IntakeState
from kgate_mirror_server.trust.approvals import waiting
from kgate_mirror_server.trust.breakglass import lasting
from kgate_mirror_server.trust.publicationlog import record
from kgate_mirror_server.trust.reopening import keep_open

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from kgate_core.digest import Digest
    from kgate_core.lock import Lock, LockedKernel
    from kgate_mirror_server.admit import Dependencies
    from kgate_mirror_server.app import Mirror
    from kgate_mirror_server.settings.site import Pin


def sign(mirror: Mirror, lock: Lock, now: datetime, *, tell: Callable[[str], None]) -> SyncResult:
    """Publish every pin of the lock whose evidence is stored; raises as `sync` does.

    A pin that was not brought in yet is a failure of that pin only.
    """
    refresh_trust(mirror, now)
    check_trust(mirror, lock, now)
    attach(mirror, lock, now)
    result = SyncResult(exceptions=mirror.exceptions(now))
    for pin, locked in dependencies_first(mirror, lock):
        dependencies = dependencies_of(mirror, lock, locked)
        try:
            done = done_before(mirror, pin, locked, dependencies, now)
            if done is None:
                tell(f"signing {pin}")
                done = _sign(mirror, pin, locked, dependencies, now)
        except KgateError as exc:
            result.failures.append(Failure(pin, exc))
            continue
        result.kernels.append(done)
    result.models = sign_models(mirror, now, tell)
    result.closed = keep_open(mirror, now)
    if record(mirror, now):
        refresh_trust(mirror, now)
    result.glass = [item for item in lasting(mirror, now) if item not in result.closed]
    result.waiting = waiting(mirror, mirror.catalog.publications(), now)
    return result


def _sign(
    mirror: Mirror, pin: Pin, locked: LockedKernel, dependencies: Dependencies, now: datetime
) -> KernelResult:
    known = {name: _evidence(mirror, locked, name, dependencies) for name in locked.variants}
    asked = asked_of(mirror, pin, {name: mirror.room.metadata(f) for name, f in known.items()})
    results = []
    for name, found in sorted(known.items()):
        kernel = KernelId(locked.origin, locked.repo_type, locked.repo, locked.commit, name)
        manifest = locked.variants[name].manifest
        decision = mirror.decide(stored_evidence(mirror, kernel, locked.lane, found, asked), now)
        found[EvidenceKind.DECISION] = mirror.room.keep(strictjson.dumps(decision.to_json()))
        state = IntakeState.DECIDED if decision.allowed else IntakeState.DENIED
        mirror.room.remember(kernel, locked.lane, manifest, found, state, now)
        results.append(VariantResult(name, manifest, decision, decision.denials, found))
    allowed = [item for item in results if item.allowed]
    served = publish_kernel(mirror, pin, locked, allowed, now) if allowed else None
    for item in results:
        if not item.allowed:
            mirror.catalog.deny(denial_of(pin, locked, item, now))
    return KernelResult(pin, locked.lane, locked.commit, served, tuple(results), fresh=True)


def _evidence(
    mirror: Mirror, locked: LockedKernel, name: str, dependencies: Dependencies
) -> dict[EvidenceKind, Digest]:
    """Return what is stored about a variant, with what it loads as the catalog has it now."""
    kernel = KernelId(locked.origin, locked.repo_type, locked.repo, locked.commit, name)
    found: Mapping[EvidenceKind, Digest] = mirror.room.found(kernel, locked.lane) or {}
    if found.get(EvidenceKind.MANIFEST) != locked.variants[name].manifest or not (
        {EvidenceKind.SCAN, EvidenceKind.IMPORT} <= found.keys()
    ):
        raise NotFound(
            f"{locked.repo}@{locked.commit.short} {name}: what the lock promises is not stored",
            hint="bring it in first: `kgate sync --no-sign`, as the user that may fetch",
        )
    imported = replace(
        mirror.room.imported(found),
        depends=dependencies.met,
        depends_manifests=dependencies.manifests,
        unmet=dependencies.unmet,
    )
    return {**found, EvidenceKind.IMPORT: mirror.room.keep(strictjson.dumps(imported.to_json()))}
