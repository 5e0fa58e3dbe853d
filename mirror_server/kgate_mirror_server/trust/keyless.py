"""Published decisions signed once more without keys, and those signatures checked again.

For archives, audits and other sites: whoever knows a CI job's identity, and no key of this site,
can check what it let in. Only decisions that verify here are signed, in their exact bytes. Pods
never read these bundles, and no lane counts them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kgate_core.bundle import Bundle
from kgate_core.errors import InvalidInput, NotFound, TrustError
from kgate_core.statement import Statement
from kgate_core.verify import Expected, Rejected, verify
from kgate_core.vsa import PREDICATE_TYPE
from kgate_mirror_server.inventory import find
from kgate_signer.keyless import Doubted, Identity, Keyless, ambient_token, file_token

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from kgate_mirror_server.app import Mirror
    from kgate_mirror_server.ports import Publication, PublishedVariant
    from kgate_mirror_server.settings.signing import KeylessSigning

MAX_CONFIG: Final = 4 * 1024**2  # bytes of a ClientTrustConfig; the public one takes 20,000


@dataclass(frozen=True, slots=True)
class Archived:
    """One decision signed without a key."""

    publication: Publication
    item: PublishedVariant
    bundle: bytes

    @property
    def file_name(self) -> str:
        """A name that says what it is about."""
        repo = self.publication.repo
        return (
            f"{repo.org}--{repo.name}@{self.publication.served.short}--{self.item.variant}"
            f"--{self.publication.lane}.sigstore.json"
        )


@dataclass(frozen=True, slots=True)
class Said:
    """What became of one keyless bundle."""

    ok: bool
    detail: str
    """Who signed which decision, or why the bundle counts for nothing."""


def attest(
    mirror: Mirror, reference: str, now: datetime, *, token: Callable[[], str] | None = None
) -> list[Archived]:
    """Sign the published decisions of a reference; `token` replaces the configured source.

    Raises NotFound if nothing is published, TrustError without a configuration or an identity, and
    UpstreamError if the Sigstore does not answer.
    """
    settings = _settings(mirror)
    keyless = _opened(mirror, settings)
    if token is None:
        token = _token(mirror, settings)
    made = []
    for publication in find(mirror.catalog, reference).publications:
        for item in publication.variants:
            statement = _decision(mirror, publication, item, now)
            made.append(Archived(publication, item, keyless.sign(statement, token)))
    if not made:
        raise NotFound(f"nothing of {reference} is published")
    return made


def check(
    mirror: Mirror, reference: str, bundles: Sequence[bytes], identities: Sequence[Identity]
) -> list[Said]:
    """Check keyless bundles about a reference; without identities those of kgate.yaml count.

    Asks no service. Raises TrustError without a configuration, or if nobody is named anywhere.
    """
    settings = _settings(mirror)
    believed = identities or [Identity(one.issuer, one.name) for one in settings.identities]
    if not believed:
        raise TrustError(
            "nobody's keyless signature counts here",
            hint="name them in kgate.yaml under signing.keyless.identities, or give --identity",
        )
    keyless = _opened(mirror, settings)
    published = {
        payload: f"{publication.repo}@{publication.served.short} {item.variant}"
        f" (lane {publication.lane})"
        for publication in find(mirror.catalog, reference).publications
        for item in publication.variants
        for payload in _decisions(mirror, item)
    }
    return [_said(keyless, data, believed, published) for data in bundles]


def _said(
    keyless: Keyless, data: bytes, believed: Sequence[Identity], published: dict[bytes, str]
) -> Said:
    found = keyless.verify(data, believed)
    if isinstance(found, Doubted):
        return Said(ok=False, detail=found.message)
    about = published.get(found.statement.data)
    if about is None:
        return Said(ok=False, detail="it signs another decision than the one published here")
    return Said(ok=True, detail=f"{about} by {found.identity.name} of {found.identity.issuer}")


def _decision(
    mirror: Mirror, publication: Publication, item: PublishedVariant, now: datetime
) -> Statement:
    """Return the decision of a published variant that verifies; raises TrustError."""
    expected = Expected(
        item.variant,
        publication.lane,
        publication.repo,
        publication.served,
        publication.repo_type,
    )
    verdict = verify(
        expected,
        mirror.room.manifest(item.evidence),
        [mirror.room.read(digest) for digest in item.bundles],
        mirror.trusted(now),
        now=now,
    )
    if isinstance(verdict, Rejected) or verdict.break_glass is not None:
        why = verdict.message if isinstance(verdict, Rejected) else "it is let in by break-glass"
        raise TrustError(
            f"{publication.repo}@{publication.served.short} {item.variant} has no decision to"
            f" sign: {why}",
            hint="`kgate verify` names the step that fails",
        )
    return Statement.parse(_decisions(mirror, item)[0])


def _decisions(mirror: Mirror, item: PublishedVariant) -> list[bytes]:
    """Return the exact bytes of all decisions about a variant, the pipeline's first."""
    found = []
    for digest in item.bundles:
        try:
            payload = Bundle.parse(mirror.room.read(digest)).envelope.payload
            if Statement.parse(payload).predicate_type == PREDICATE_TYPE:
                found.append(payload)
        except InvalidInput:
            continue
    return found


def _settings(mirror: Mirror) -> KeylessSigning:
    settings = mirror.config.signing.keyless
    if settings is None:
        raise TrustError(
            "kgate.yaml names no Sigstore",
            hint="signing: {keyless: {trust_config: FILE}}; see docs/signing.md",
        )
    return settings


def _opened(mirror: Mirror, settings: KeylessSigning) -> Keyless:
    path = mirror.config.path(settings.trust_config)
    try:
        with path.open("rb") as stream:
            return Keyless(stream.read(MAX_CONFIG))
    except OSError as exc:
        raise TrustError(
            f"signing.keyless.trust_config: {path} cannot be read ({exc.strerror})"
        ) from exc


def _token(mirror: Mirror, settings: KeylessSigning) -> Callable[[], str]:
    scheme, _, name = settings.token.partition(":")
    if scheme != "file":
        return ambient_token
    path = mirror.config.path(Path(name))
    return lambda: file_token(path)
