"""All pins at once: keep the lock, admit what is new, leave alone what is done, report.

A pin that fails does not stop the others; nothing of it is published. Which exit code the
outcome means is the command line's affair.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from kgate_core.errors import KgateError, TrustError
from kgate_core.kernel import KernelId
from kgate_core.lock import Lock, LockedKernel
from kgate_mirror_server.admit import (
    Dependencies,
    KernelResult,
    VariantResult,
    admit,
    asked_of,
    stored_evidence,
)
from kgate_mirror_server.feeds.comparing import unless_changed
from kgate_mirror_server.ingest.chains import asks_again
from kgate_mirror_server.ingest.fleet import covers_targets
from kgate_mirror_server.ingest.kernelslock import check_hashes
from kgate_mirror_server.ingest.needs import dependencies_first, dependencies_of
from kgate_mirror_server.ingest.qualification import attach
from kgate_mirror_server.ingest.resolve import (
    Moved,
    Source,
    find_locked,
    resolve_pin,
)
from kgate_mirror_server.ingest.standing import Standings
from kgate_mirror_server.models.intake import ModelFailure, ModelsResult, admit_models
from kgate_mirror_server.ports import EvidenceKind
from kgate_mirror_server.trust.approvals import Waiting, waiting
from kgate_mirror_server.trust.audithead import sign_head
from kgate_mirror_server.trust.breakglass import Request, lasting
from kgate_mirror_server.trust.exceptions import Exceptions
from kgate_mirror_server.trust.files import changing, read_trust, write_trust
from kgate_mirror_server.trust.publicationlog import head_to_sign, record
from kgate_mirror_server.trust.reopening import keep_open
from kgate_policy.baseline import RULES
from kgate_signer.trustwriter import refresh_timestamp

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from kgate_core.digest import Digest
    from kgate_core.evidence import Decision, Outcome
    from kgate_core.kernel import Revision
    from kgate_mirror_server.app import Mirror
    from kgate_mirror_server.ingest.fetch import Progress
    from kgate_mirror_server.ingest.kernelslock import Asked
    from kgate_mirror_server.ports import Publication
    from kgate_mirror_server.settings.site import Pin

    Told = Callable[[str], None]

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Failure:
    """A pin about which there is no answer, and why."""

    pin: Pin
    error: KgateError


@dataclass(slots=True)
class SyncResult:
    """How every pin came out."""

    kernels: list[KernelResult] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    moved: list[Moved] = field(default_factory=list)
    fetched_bytes: int = 0
    waiting: list[Waiting] = field(default_factory=list)
    """What was signed, but lacks a signature that its lane asks for besides."""
    models: ModelsResult = field(default_factory=ModelsResult)
    """How model pins came out."""
    exceptions: Exceptions = field(default_factory=Exceptions)
    """What may be used although a rule denies it, and what claims to be but may not."""
    glass: list[Request] = field(default_factory=list)
    """What is let in for hours by a break-glass statement."""
    closed: list[Request] = field(default_factory=list)
    """What was let in and is not any more before its end: what there is now is something else."""

    @property
    def failed(self) -> tuple[Failure | ModelFailure, ...]:
        """Every pin about which there is no answer."""
        return (*self.failures, *self.models.failures)

    @property
    def denied(self) -> int:
        """How many variants may not be used."""
        variants = sum(not item.allowed for kernel in self.kernels for item in kernel.variants)
        return variants + sum(not item.decision.allowed for item in self.models.models)

    @property
    def approved(self) -> int:
        """How many variants may be used."""
        variants = sum(item.allowed for kernel in self.kernels for item in kernel.variants)
        return variants + sum(item.decision.allowed for item in self.models.models)


def update_lock(
    mirror: Mirror,
    lock: Lock | None,
    source: Source,
    *,
    upgrade: Callable[[Pin], bool],
    tell: Told,
    asked: Mapping[tuple[str, str], Asked] | None = None,
) -> Lock:
    """Return a lock over exactly the pins; those already locked stay where they are.

    `upgrade` says for which pins the present commit is taken instead, `asked` what
    another lock file says that a repository's pin means. Raises what the first pin that cannot
    be resolved raises: half a lock is none.
    """
    kernels = []
    for pin in mirror.config.kernels:
        locked = find_locked(lock, mirror.config, pin)
        if locked is not None and not upgrade(pin):
            if not covers_targets(locked, mirror.config):
                tell(f"looking for variants of {pin}")
                locked = resolve_pin(source.of(pin), mirror.config, pin, locked.commit)
        else:
            tell(f"resolving {pin}")
            named = (asked or {}).get((pin.repo, pin.wanted))
            if named is not None and named.commit is not None:
                check_hashes(named, source.of(pin).files(pin.ref, named.commit))
            commit = None if named is None else named.commit
            locked = resolve_pin(source.of(pin), mirror.config, pin, commit)
        kernels.append(locked)
    return Lock(tuple(kernels))


def sync(
    mirror: Mirror,
    lock: Lock,
    source: Source,
    now: datetime,
    *,
    tell: Told,
    sign: bool = True,
    only: Callable[[LockedKernel], bool] = lambda _locked: True,
) -> SyncResult:
    """Admit every pin of the lock; raises TrustError if what would be signed counts nowhere.

    Without `sign`, no key is opened and nothing is published: `signing.sign` does that later.
    Of what `only` says no to, nothing is asked. Two runs at once do each pin once.
    """
    if sign:
        refresh_trust(mirror, now)
    check_trust(mirror, lock, now)
    attach(mirror, lock, now)
    result = SyncResult(exceptions=mirror.exceptions(now))
    standings = Standings(mirror, now)
    for pin, locked in dependencies_first(mirror, lock):
        if not only(locked):
            continue
        dependencies = dependencies_of(mirror, lock, locked)
        try:
            own = source.of(pin)
            _note_moved(own, pin, locked, result)
            again = asks_again(mirror, own, locked, now)
            kept = None if again else standings.find(pin, locked, dependencies)
            if kept is not None:
                result.kernels.append(kept)
                continue
            with mirror.claims.hold(f"pin:{locked.lane}/{locked.repo}@{locked.commit}"):
                # Whoever had to wait for another run finds it done.
                known = (mirror, pin, locked, dependencies, now)
                done = None if again else done_before(*known, signed=sign)
                if done is None:
                    tell(f"admitting {pin}")
                    done = admit(mirror, own, pin, locked, dependencies, now, sign=sign)
            if sign:
                standings.keep(done, locked, dependencies)
        except KgateError as exc:
            result.failures.append(Failure(pin, exc))
            continue
        result.kernels.append(done)
    standings.write()
    result.models = admit_models(mirror, now, source.progress, tell, sign=sign)
    if sign:
        result.closed = keep_open(mirror, now)
    result.fetched_bytes = source.all_fetched + result.models.fetched_bytes
    if sign and record(mirror, now):
        refresh_trust(mirror, now)
    published = {(item.pin.ref, item.served, item.lane) for item in result.models.models}
    published |= {(kernel.pin.ref, kernel.served, kernel.lane) for kernel in result.kernels}
    result.glass = [item for item in lasting(mirror, now) if item not in result.closed]
    result.waiting = waiting(
        mirror,
        (
            item
            for item in mirror.catalog.publications()
            if (item.repo, item.served, item.lane) in published
        ),
        now,
    )
    return result


def refresh_trust(mirror: Mirror, now: datetime) -> None:
    """Sign the timestamp anew with the online key, over the publication log's head."""
    folder = mirror.config.path(mirror.config.trust)
    key = mirror.key(mirror.config.keys.timestamp)
    with changing(folder):
        trust = read_trust(folder)
        head = head_to_sign(mirror, trust.timestamp)
        write_trust(folder, refresh_timestamp(trust, key, now=now, log_head=head))
    try:
        sign_head(folder, mirror.audit, key, now)
    except KgateError as exc:
        # Pods wait for the timestamp, auditors for this: one does not hold up the other.
        _log.error("audit.unanchored reason=%s", exc.message)


def new_source(mirror: Mirror, progress: Progress) -> Source:
    """Return the upstream as this run sees it."""
    return Source(mirror.upstream, mirror.store, progress, mirror.open_upstream)


def check_trust(mirror: Mirror, lock: Lock, now: datetime) -> None:
    """Refuse to sign what every pod would reject without anybody knowing why."""
    trusted = mirror.trusted(now)
    hint = "run `kgate trust update` where keys/root.pem is; pods learn of it by themselves"
    if trusted.site != mirror.config.site:
        raise TrustError(
            f"kgate.yaml says site {mirror.config.site}, the trust metadata {trusted.site}",
            hint="a site's name cannot change: put it back, or make a new site with `kgate init`",
        )
    for kernel in lock.kernels:
        lane = trusted.lanes.get(kernel.lane)
        if lane is None:
            raise TrustError(f"the trust metadata knows no lane {kernel.lane!r}", hint=hint)
        policy = mirror.rules.of(kernel.lane)
        if policy.digest not in lane.policies:
            raise TrustError(
                f"lane {lane.name} does not count decisions of this policy"
                f" ({policy.name}, {policy.digest.short}…)",
                hint=f"it was changed: {hint}",
            )
        if kernel.origin not in lane.origins:
            if kernel.origin not in mirror.config.origins(lane.name):
                hint = f"name {kernel.origin} as `upstream:` in kgate.yaml, then {hint}"
            raise TrustError(f"lane {lane.name} allows no kernels from {kernel.origin}", hint=hint)


def _note_moved(source: Source, pin: Pin, locked: LockedKernel, result: SyncResult) -> None:
    if pin.version is None:
        return
    now = source.commit(pin)
    if now != locked.commit:
        result.moved.append(Moved(pin.ref, pin.version, locked.commit, now))


def done_before(
    mirror: Mirror,
    pin: Pin,
    locked: LockedKernel,
    dependencies: Dependencies,
    now: datetime,
    *,
    signed: bool = True,
) -> KernelResult | None:
    """Return the former result of a pin if nothing that it rests on has changed, else None.

    What was decided and is not published yet is done for those only who do not sign.
    """
    known = {}
    for name, promised in sorted(locked.variants.items()):
        kernel = KernelId(locked.origin, locked.repo_type, locked.repo, locked.commit, name)
        found = mirror.room.found(kernel, locked.lane)
        if found is None or found.get(EvidenceKind.MANIFEST) != promised.manifest:
            return None
        if EvidenceKind.DECISION not in found:
            return None  # a former run ended halfway
        known[name] = (kernel, promised.manifest, found)
    siblings = {name: mirror.room.metadata(found) for name, (_, _, found) in known.items()}
    asked = asked_of(mirror, pin, siblings)
    variants = []
    for name, (kernel, manifest, found) in known.items():
        decision = mirror.room.decision(found)
        imported = mirror.room.imported(found)
        rests_on = (imported.depends, imported.depends_manifests, imported.unmet)
        if rests_on != (dependencies.met, dependencies.manifests, dependencies.unmet):
            return None
        today = unless_changed(mirror, stored_evidence(mirror, kernel, locked.lane, found, asked))
        if today is None:
            return None
        # Another run that began a second later may have decided while this one waited.
        again = mirror.decide(today, max(now, decision.decided_at))
        if not _still_counts(mirror, decision, again, now):
            return None
        variants.append(VariantResult(name, manifest, decision, decision.denials, found))
    allowed = {item.variant: item.manifest for item in variants if item.allowed}
    served = _served(mirror.catalog.publications_of(locked.repo, locked.lane), pin, locked, allowed)
    if allowed and served is None and signed:
        return None
    return KernelResult(pin, locked.lane, locked.commit, served, tuple(variants), fresh=False)


def _still_counts(mirror: Mirror, decision: Decision, again: Decision, now: datetime) -> bool:
    """Return whether asking again, with today's exceptions and date, gives the same answers."""
    # Renewed at half its life, so that no pod ever meets an expired decision.
    half = timedelta(days=mirror.config.valid_days) / 2
    same = decision.policy_digest == again.policy_digest and _said(decision) == _said(again)
    return same and now - decision.decided_at < half


def _said(decision: Decision) -> list[tuple[str, Outcome, str]]:
    # Not the hints: they may count days. Nor what expressions saw: the mirror's own counts change.
    return [
        (item.rule, item.outcome, item.seen if item.rule in RULES else "")
        for item in decision.results
    ]


def _served(
    publications: Sequence[Publication],
    pin: Pin,
    locked: LockedKernel,
    allowed: Mapping[str, Digest | None],
) -> Revision | None:
    for item in publications:
        if (
            item.repo == locked.repo
            and item.lane == locked.lane
            and item.upstream == locked.commit
            and (pin.version is None or item.version == pin.version)
            and {variant.variant: variant.manifest for variant in item.variants} == allowed
        ):
            return item.served
    return None
