"""One model pin, from a commit to a publication: list, fetch, judge, sign, publish.

The same promises as for kernels: every byte is checked against what upstream lists, a denied model
is recorded with its reasons and its weights are not fetched, a crash leaves unreferenced blobs at
worst, and what is published is signed for its lane. Models are not scanned and have no SBOM. What
a process may load of a model's code is not asked here (docs/threat-model.md, the boundary).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from kgate_core import strictjson
from kgate_core.errors import KgateError, NotFound
from kgate_core.evidence import Decision
from kgate_core.kernel import WHOLE, KernelId, RepoType, Revision
from kgate_mirror_server.ingest.evidence import Imported
from kgate_mirror_server.ingest.fetch import describe_files, fetch_large
from kgate_mirror_server.models.publishing import publish_model, published_models
from kgate_mirror_server.models.rules import is_strict, judge
from kgate_mirror_server.ports import (
    Denial,
    EvidenceKind,
    IntakeState,
)
from kgate_mirror_server.serve.modelrules import CONFIGS, MAX_CONFIG
from kgate_mirror_server.upstream import open_models

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from kgate_core.digest import Digest
    from kgate_core.evidence import RuleResult
    from kgate_core.manifest import Manifest
    from kgate_mirror_server.app import Mirror
    from kgate_mirror_server.ingest.fetch import Progress
    from kgate_mirror_server.ports import HubClient, ServedFile
    from kgate_mirror_server.settings.models import ModelPin, Models


@dataclass(frozen=True, slots=True)
class ModelResult:
    """How one model came out."""

    pin: ModelPin
    lane: str
    decision: Decision
    manifest: Digest
    served: Revision | None
    """The revision that clients see; None if it was denied."""
    fresh: bool
    """False if it was published before and nothing had to be done."""


@dataclass(frozen=True, slots=True)
class ModelFailure:
    """A model about which there is no answer, and why."""

    pin: ModelPin
    error: KgateError


@dataclass(slots=True)
class ModelsResult:
    """How every model pin came out."""

    models: list[ModelResult] = field(default_factory=list)
    failures: list[ModelFailure] = field(default_factory=list)
    fetched_bytes: int = 0


@dataclass(frozen=True, slots=True)
class _Listed:
    """A model as upstream promises it; its small files are in the store."""

    manifest: Manifest
    files: tuple[ServedFile, ...]


def admit_models(
    mirror: Mirror,
    now: datetime,
    progress: Progress,
    tell: Callable[[str], None],
    *,
    sign: bool = True,
) -> ModelsResult:
    """Admit every model pin; one that fails does not stop the others.

    Without `sign`, no key is opened and nothing is published: `sign_models` does that later.
    """
    result = ModelsResult()
    models = mirror.config.models
    if models is None or not models.mirror:
        return result
    for pin in models.mirror:
        lane = mirror.config.lane_of(pin)
        origin = mirror.config.upstream_of(pin).identity
        try:
            done = _done_before(mirror, models, origin, pin, lane, now)
            if done is None:
                tell(f"admitting model {pin}")
                upstream = open_models(
                    mirror.config, mirror.config.upstream_of(pin), mirror.environment
                )
                done, fetched = _admit(mirror, models, upstream, pin, lane, now, progress, sign)
                result.fetched_bytes += fetched
        except KgateError as exc:
            result.failures.append(ModelFailure(pin, exc))
        else:
            result.models.append(done)
    return result


def sign_models(mirror: Mirror, now: datetime, tell: Callable[[str], None]) -> ModelsResult:
    """Publish every model pin whose files are stored, decided anew; reaches no upstream.

    A pin that was not brought in yet is a failure of that pin only.
    """
    result = ModelsResult()
    models = mirror.config.models
    if models is None or not models.mirror:
        return result
    for pin in models.mirror:
        lane = mirror.config.lane_of(pin)
        origin = mirror.config.upstream_of(pin).identity
        try:
            done = _done_before(mirror, models, origin, pin, lane, now)
            if done is None:
                tell(f"signing model {pin}")
                done = _sign_stored(mirror, models, origin, pin, lane, now)
        except KgateError as exc:
            result.failures.append(ModelFailure(pin, exc))
        else:
            result.models.append(done)
    return result


def _sign_stored(
    mirror: Mirror, models: Models, origin: str, pin: ModelPin, lane: str, now: datetime
) -> ModelResult:
    kernel = KernelId(origin, RepoType.MODEL, pin.ref, Revision(pin.revision), WHOLE)
    found = dict(mirror.room.found(kernel, lane) or {})
    if not {EvidenceKind.IMPORT, EvidenceKind.MANIFEST} <= found.keys() or (
        mirror.room.imported(found).pin != pin.wanted
    ):
        raise NotFound(
            f"{pin}: what it asks for is not stored",
            hint="bring it in first: `kgate sync --no-sign`, as the user that may fetch",
        )
    files, manifest = mirror.room.imported(found).files, found[EvidenceKind.MANIFEST]
    decision = _decide(mirror, models, pin, lane, files, now)
    if not decision.allowed:
        mirror.catalog.deny(_denial(kernel, lane, manifest, decision, now))
        return ModelResult(pin, lane, decision, manifest, None, fresh=True)
    found[EvidenceKind.DECISION] = mirror.room.keep(strictjson.dumps(decision.to_json()))
    served = publish_model(mirror, kernel, lane, files, found, now)
    return ModelResult(pin, lane, decision, manifest, served, fresh=True)


def _admit(
    mirror: Mirror,
    models: Models,
    upstream: HubClient,
    pin: ModelPin,
    lane: str,
    now: datetime,
    progress: Progress,
    sign: bool,  # noqa: FBT001  # private
) -> tuple[ModelResult, int]:
    commit = Revision(pin.revision)
    kernel = KernelId(upstream.origin, RepoType.MODEL, pin.ref, commit, WHOLE)
    # 1. What upstream lists, of that what was asked for; small files come in and are checked.
    wanted = [
        file
        for file in upstream.files(pin.ref, commit)
        if any(fnmatchcase(file.path, pattern) for pattern in pin.files)
    ]
    if not wanted:
        raise NotFound(f"{pin}: no file matches {', '.join(pin.files)}")
    manifest, files, fetched = describe_files(
        upstream, mirror.store, pin.ref, commit, wanted, "", progress
    )
    listed = _Listed(manifest, files)
    # 2. The rules, before the weights are fetched.
    decision = _decide(mirror, models, pin, lane, files, now)
    if not decision.allowed:
        mirror.catalog.deny(_denial(kernel, lane, manifest.digest, decision, now))
        return ModelResult(pin, lane, decision, manifest.digest, None, fresh=True), fetched
    # 3. The weights, each checked by its sha256 while it is stored.
    fetched += fetch_large(upstream, mirror.store, pin.ref, commit, listed, progress)
    found = _found(mirror, kernel, pin, listed, decision, now)
    if not sign:
        mirror.room.remember(kernel, lane, manifest.digest, found, IntakeState.DECIDED, now)
        return ModelResult(pin, lane, decision, manifest.digest, None, fresh=True), fetched
    served = publish_model(mirror, kernel, lane, files, found, now)
    return ModelResult(pin, lane, decision, manifest.digest, served, fresh=True), fetched


def _decide(
    mirror: Mirror,
    models: Models,
    pin: ModelPin,
    lane: str,
    files: tuple[ServedFile, ...],
    now: datetime,
) -> Decision:
    """Ask the built-in rules about stored files; they count under the lane's policy."""
    configs = {
        file.path: _read(mirror, file) for file in files if file.path.rpartition("/")[2] in CONFIGS
    }
    strict = is_strict(models, lane, pin.repo)
    results = judge((file.path for file in files), configs, strict=strict)
    policy = mirror.rules.of(lane)
    return Decision(policy.name, policy.digest, results, now)


def _read(mirror: Mirror, file: ServedFile) -> bytes | None:
    if file.lfs or file.size > MAX_CONFIG:
        return None
    return mirror.room.read(file.digest)


def _found(
    mirror: Mirror,
    kernel: KernelId,
    pin: ModelPin,
    listed: _Listed,
    decision: Decision,
    now: datetime,
) -> dict[EvidenceKind, Digest]:
    """Keep what was found about a model and return its digests."""
    room = mirror.room
    imported = Imported(
        origin=kernel.origin,
        repo_type=kernel.repo_type,
        repo=kernel.repo,
        revision=Revision(pin.revision),
        pin=pin.wanted,
        variant=WHOLE,
        files=listed.files,
        fetched_at=now,
        signature={"status": "not-checked", "detail": "publishers do not sign models yet"},
    )
    return {
        EvidenceKind.MANIFEST: room.keep(listed.manifest.canonical),
        EvidenceKind.METADATA: room.keep(b"{}"),
        EvidenceKind.IMPORT: room.keep(strictjson.dumps(imported.to_json())),
        EvidenceKind.DECISION: room.keep(strictjson.dumps(decision.to_json())),
    }


def _done_before(
    mirror: Mirror, models: Models, origin: str, pin: ModelPin, lane: str, now: datetime
) -> ModelResult | None:
    """Return the former result of a pin if the same rules say the same today, else None."""
    kernel = KernelId(origin, RepoType.MODEL, pin.ref, Revision(pin.revision), WHOLE)
    for item in published_models(mirror, kernel, lane):
        if (item.upstream, item.origin) != (kernel.revision, origin):
            continue
        found = mirror.room.found(replace(kernel, revision=item.served), lane)
        if found is None or EvidenceKind.DECISION not in found:
            continue
        imported = mirror.room.imported(found)
        if imported.pin != pin.wanted:
            continue
        before = mirror.room.decision(found)
        again = _decide(mirror, models, pin, lane, imported.files, now)
        # Renewed at half its life, so that no decision ends while it is served.
        young = now - before.decided_at < timedelta(days=mirror.config.valid_days) / 2
        if young and _said(before) == _said(again):
            manifest = found[EvidenceKind.MANIFEST]
            return ModelResult(pin, lane, before, manifest, item.served, fresh=False)
    return None


def _said(decision: Decision) -> tuple[Digest, tuple[RuleResult, ...]]:
    return decision.policy_digest, decision.results


def _denial(
    kernel: KernelId, lane: str, manifest: Digest, decision: Decision, now: datetime
) -> Denial:
    reasons: tuple[Mapping[str, object], ...] = tuple(
        reason.to_json() for reason in decision.denials
    )
    return Denial(
        kernel.origin,
        kernel.repo_type,
        kernel.repo,
        kernel.revision,
        None,
        lane,
        WHOLE,
        manifest,
        tuple(dict(reason) for reason in reasons),
        now,
    )
