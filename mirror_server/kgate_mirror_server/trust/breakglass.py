"""Break-glass on the mirror: ask for it, sign it as an approver, publish it when enough have.

One file per request in the folder `break_glass:` of kgate.yaml, one signed bundle per line: first
whoever asks, then each approver. Every signer's statement is compared with the stored evidence, so
nobody signs what somebody else wrote into the file. What counts, and for how long, is `verify`'s
to say, here as in a pod. A decision is never changed: a denied variant stays denied.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from kgate_core.breakglass import PREDICATE_TYPE, BreakGlass, approvers
from kgate_core.bundle import Bundle
from kgate_core.errors import Conflict, InvalidInput, KgateError, NotFound, TrustError
from kgate_core.manifest import Manifest
from kgate_core.statement import Statement, subjects_of
from kgate_core.verify import Expected, Reason, Rejected, Verdict, Verified, verify
from kgate_mirror_server.ports import IntakeState, Publication, PublishedVariant
from kgate_mirror_server.trust.approvals import kept_approvals
from kgate_mirror_server.trust.files import replace_file
from kgate_mirror_server.trust.overruled import Case, find_cases, kernel_of
from kgate_mirror_server.upkeep.shelf import publish
from kgate_signer.sign import sign_statement

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime, timedelta
    from pathlib import Path

    from kgate_core.digest import Digest
    from kgate_mirror_server.app import Mirror
    from kgate_mirror_server.ports import EvidenceKind
    from kgate_signer.keys import KeyProvider

SUFFIX: Final = ".sigstore.jsonl"
MAX_FILE: Final = 4 * 1024**2  # bytes of one request with all its signatures


@dataclass(frozen=True, slots=True)
class Terms:
    """What a person says who asks."""

    reason: str
    requested_by: str
    lasting: timedelta


@dataclass(frozen=True, slots=True)
class Request:
    """One statement with the signatures that were given so far."""

    path: Path
    statement: Statement
    glass: BreakGlass
    bundles: tuple[bytes, ...]

    @property
    def name(self) -> str:
        """Its file's name without the ending."""
        return self.path.name.removesuffix(SUFFIX)

    @property
    def hints(self) -> tuple[str, ...]:
        """Names of the keys that signed, as far as the file says."""
        return tuple(Bundle.parse(data).hint for data in self.bundles)

    @property
    def about(self) -> str:
        """Repository, revision and variant for people."""
        kernel = self.glass.kernel
        return f"{kernel.repo}@{kernel.revision.short} {kernel.variant} (lane {self.glass.lane})"


def ask(
    mirror: Mirror, reference: str, terms: Terms, key: KeyProvider, now: datetime
) -> list[Request]:
    """Write and sign a request for each variant that is denied or waits; publishes nothing.

    Raises NotFound if nothing under the reference is denied or waits, Conflict if it is revoked or
    denied by a rule that nothing overrules, TrustError for a key that nobody registered.
    """
    hint = key.public_key().hint
    if hint not in mirror.trusted(now).keys:
        raise TrustError(f"the key {hint} is none of this site's", hint="kgate keys list")
    made = []
    for case in find_cases(mirror, reference, now):
        glass = _statement_of(mirror, case, terms, hint, now)
        statement = Statement.of(
            subjects_of(mirror.room.manifest(case.item.evidence)),
            PREDICATE_TYPE,
            glass.to_predicate(),
        )
        _check_not_final(_verdict(mirror, case, (), now))
        path = _folder(mirror) / (
            f"{glass.kernel.repo.name}-{glass.manifest.hex[:12]}-{glass.until:%Y%m%dT%H%M}{SUFFIX}"
        )
        if path.exists():
            raise Conflict(f"{path} exists", hint="it was asked for already: approve it")
        request = Request(path, statement, glass, (sign_statement(statement, key),))
        _write(request)
        made.append(request)
    return made


def requests(mirror: Mirror, now: datetime) -> list[Request]:
    """Return every request that has not ended, the next to end first; raises InvalidInput."""
    folder = _folder(mirror)
    found = [_read(path) for path in sorted(folder.glob(f"*{SUFFIX}"))] if folder.is_dir() else []
    lasting = [item for item in found if now < item.glass.until]
    return sorted(lasting, key=lambda item: (item.glass.until, item.name))


def find_requests(mirror: Mirror, reference: str, now: datetime) -> list[Request]:
    """Return the requests about a reference; raises NotFound if there is none."""
    cases = find_cases(mirror, reference, now)
    meant = {(case.publication.lane, case.item.manifest) for case in cases}
    found = [r for r in requests(mirror, now) if (r.glass.lane, r.glass.manifest) in meant]
    if not found:
        raise NotFound(
            f"nobody asked to break the glass for {reference}",
            hint=f'kgate break-glass ask {reference} --hours 8 --reason "…" --requested-by NAME',
        )
    return found


def lasting(mirror: Mirror, now: datetime) -> list[Request]:
    """Return the requests that enough people signed and that let something in right now."""
    return [request for request in requests(mirror, now) if counts(mirror, request, now)]


def counts(mirror: Mirror, request: Request, now: datetime) -> bool:
    """Return whether enough people signed a request, revocations and time considered."""
    return isinstance(_verdict_of(mirror, request, now), Verified)


def approve(mirror: Mirror, request: Request, key: KeyProvider, now: datetime) -> Request:
    """Sign a request as an approver, and publish what it lets in once enough have.

    Raises TrustError for a key that does not approve, Conflict for one that asked or signed
    already, or if the stored evidence says something else than the request.
    """
    hint = key.public_key().hint
    trusted = mirror.trusted(now)
    lane = trusted.lanes.get(request.glass.lane)
    if lane is None or hint not in approvers(lane, trusted):
        raise TrustError(
            f"the key {hint} approves nothing in lane {request.glass.lane}",
            hint="name the approver's key in kgate.yaml under keys.approve, or with --key",
        )
    if hint in request.hints:
        raise Conflict(
            f"the key {hint} has signed {request.name} already",
            hint="who asks and the two who approve are three people with three keys",
        )
    case = case_of(mirror, request, now)
    _check_not_final(_verdict(mirror, case, (), now))
    signed = replace(request, bundles=(*request.bundles, sign_statement(request.statement, key)))
    _write(signed)
    if isinstance(_verdict(mirror, case, signed.bundles, now), Verified):
        let_in(mirror, case, signed, now)
    return signed


def let_in(mirror: Mirror, case: Case, request: Request, now: datetime) -> None:
    """Publish a variant with the statements that enough people signed about it."""
    glass = request.glass
    kept = tuple(mirror.room.keep(data) for data in request.bundles)
    opened = replace(case.item, bundles=(*case.item.bundles, *kept))
    variants = []
    for item in case.publication.variants:
        if item.variant == opened.variant:
            variants.append(opened)
        elif case.denial is None:
            variants.append(item)
        else:
            # The set is wider than before, so it has another revision: the decisions about
            # the other variants are signed anew for it.
            variants.append(_signed_anew(mirror, case.publication, item, now))
    if case.denial is not None:
        mirror.room.remember(
            glass.kernel, glass.lane, glass.manifest, opened.evidence, IntakeState.DENIED, now
        )
    publish(mirror, replace(case.publication, variants=tuple(variants)))
    if case.denial is not None:
        mirror.catalog.deny(case.denial)  # it is let in, and it stays denied


def _signed_anew(
    mirror: Mirror, publication: Publication, item: PublishedVariant, now: datetime
) -> PublishedVariant:
    kernel = kernel_of(publication, item.variant)
    room, lane = mirror.room, publication.lane
    room.remember(kernel, lane, item.manifest, item.evidence, IntakeState.DECIDED, now)
    approvals = kept_approvals(mirror, kernel, lane, item.manifest, now)
    signed = mirror.attestor_for(item.manifest, now).attest(kernel, lane, item.manifest, now)
    decision, *others = (room.keep(bundle) for bundle in signed.bundles)
    return replace(item, bundles=(decision, *approvals, *others))


def _statement_of(
    mirror: Mirror, case: Case, terms: Terms, requester: str, now: datetime
) -> BreakGlass:
    evidence: Mapping[EvidenceKind, Digest] = case.item.evidence
    room = mirror.room
    return BreakGlass(
        kernel=kernel_of(case.publication, case.item.variant),
        upstream_revision=case.publication.upstream,
        lane=case.publication.lane,
        site=mirror.config.site,
        manifest=case.item.manifest,
        metadata_id=str(room.metadata(evidence).get("id", "")),
        depends=room.imported(evidence).depends_manifests,
        overrules=case.overrules,
        reason=terms.reason,
        requested_by=terms.requested_by,
        requester=requester,
        granted=now,
        until=now + terms.lasting,
    )


def case_of(mirror: Mirror, request: Request, now: datetime) -> Case:
    """Return what a request is about, rebuilt from evidence; raises Conflict if they differ."""
    glass = request.glass
    for case in find_cases(mirror, str(glass.manifest), now):
        if case.publication.lane != glass.lane:
            continue
        terms = Terms(glass.reason, glass.requested_by, glass.until - glass.granted)
        again = _statement_of(mirror, case, terms, glass.requester, glass.granted)
        if again == glass:
            return case
    raise Conflict(
        f"{request.name} says something else than the stored evidence about {request.about}",
        hint="what is published has changed since, or somebody wrote into the file: ask anew",
    )


def _verdict_of(mirror: Mirror, request: Request, now: datetime) -> Verdict:
    glass = request.glass
    expected = Expected(
        glass.kernel.variant,
        glass.lane,
        glass.kernel.repo,
        glass.kernel.revision,
        glass.kernel.repo_type,
    )
    manifest = Manifest.parse(mirror.room.read(glass.manifest))
    return verify(expected, manifest, request.bundles, mirror.trusted(now), now=now)


def _verdict(mirror: Mirror, case: Case, bundles: tuple[bytes, ...], now: datetime) -> Verdict:
    where = case.publication
    expected = Expected(case.item.variant, where.lane, where.repo, where.served, where.repo_type)
    manifest = mirror.room.manifest(case.item.evidence)
    return verify(expected, manifest, bundles, mirror.trusted(now), now=now)


def _check_not_final(found: Verdict) -> None:
    """Raise Conflict for what nobody breaks the glass over."""
    if isinstance(found, Rejected) and found.reason in {
        Reason.REVOKED,
        Reason.UNKNOWN_LANE,
        Reason.STALE,
    }:
        raise Conflict(found.message, hint="no break-glass statement overrules this")


def _folder(mirror: Mirror) -> Path:
    return mirror.config.path(mirror.config.break_glass)


def _read(path: Path) -> Request:
    try:
        with path.open("rb") as stream:
            lines = tuple(stream.read(MAX_FILE).splitlines())
    except OSError as exc:
        raise KgateError(f"{path}: cannot be read ({exc.strerror})") from exc
    statements = {Bundle.parse(line).envelope.payload for line in lines}
    if len(statements) != 1:
        raise InvalidInput(f"{path}: its {len(lines)} signatures are not over one statement")
    statement = Statement.parse(statements.pop())
    if statement.predicate_type != PREDICATE_TYPE:
        raise InvalidInput(f"{path}: a statement of the type {statement.predicate_type}")
    return Request(path, statement, BreakGlass.from_predicate(statement.predicate), lines)


def _write(request: Request) -> None:
    try:
        request.path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise KgateError(f"{request.path.parent}: cannot be made ({exc.strerror})") from exc
    replace_file(request.path, b"".join(data + b"\n" for data in request.bundles))
