"""What another kgate says about its kernels: its attestations, checked from its pinned root on.

The root is a file that its operator gave; nothing is believed on first sight. Documents older than
those seen before are refused. Whether a kernel without a valid word may be used is a policy's
question, and what that word was is kept beside the kernel.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from kgate_core import strictjson
from kgate_core.bundle import Bundle
from kgate_core.checks import check_signature, check_subjects
from kgate_core.digest import Digest
from kgate_core.errors import InvalidInput, KgateError, NotFound, TrustError
from kgate_core.statement import Statement
from kgate_core.trust import TrustDocuments, Versions, load
from kgate_core.tuf import MAX_METADATA, MAX_ROOT_STEPS, Root
from kgate_core.verdict import Expected, Refusal, Rejected, Trace, Verified
from kgate_core.verify import MAX_BUNDLES, verify
from kgate_core.vsa import PREDICATE_TYPE
from kgate_mirror_server.trust.files import replace_file
from kgate_mirror_server.upstream.word import Word
from kgate_signer.predicates import (
    IMPORT_TYPE,
    QUALIFICATION_TYPE,
    SBOM_TYPE,
    VULNS_TYPE,
    UpstreamSignature,
    UpstreamVerdict,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from pathlib import Path

    from kgate_core.kernel import KernelRef, RepoType, Revision
    from kgate_core.manifest import Manifest
    from kgate_core.trust import TrustedRoot
    from kgate_mirror_server.upstream.requests import Requests

API: Final = "/api/kgate/v1"
SCHEMA: Final = "kgate.dev/attestations/v1"
MAX_ATTESTATIONS: Final = 16 * 1024**2  # bytes of one answer
_ISSUER: Final = "kgate"
_FOUND: Final = frozenset({IMPORT_TYPE, SBOM_TYPE, VULNS_TYPE, QUALIFICATION_TYPE})
_VERSIONS: Final = ("root", "timestamp", "snapshot", "targets")


@dataclass(slots=True)
class Voucher:
    """Another kgate whose root a person pinned; asked once for its trust metadata in each run."""

    requests: Requests
    root: bytes
    state: Path
    """Where the versions of its trust metadata are remembered."""
    repo_type: RepoType
    _trusted: TrustedRoot | None = field(default=None)

    def trusted(self, now: datetime) -> TrustedRoot:
        """Return its trust metadata of today; raises TrustError, UpstreamError."""
        if self._trusted is None:
            self._trusted = self._load(now)
        return self._trusted

    def about(
        self, repo: KernelRef, revision: Revision, variant: str, manifest: Manifest, now: datetime
    ) -> Word:
        """Fetch and check what it says about bytes that were stored; raises UpstreamError.

        Nothing that it says raises: a false word is a verdict.
        """
        name = f"{repo}/{revision}/{variant}"
        try:
            data = self.requests.body(f"{API}/attestations/{name}", name, MAX_ATTESTATIONS)
        except NotFound:
            said = f"{self.requests.url} has no attestation of {repo}@{revision.short} {variant}"
            return Word(UpstreamSignature(UpstreamVerdict.MISSING, said, issuer=_ISSUER))
        try:
            bundles = _parse(data, manifest)
            digests = tuple(Digest.of(bundle) for bundle in bundles)
            document = strictjson.dumps(strictjson.loads(data, what=name, max_bytes=len(data)))
            trusted = self.trusted(now)
            expected = (variant, repo, revision)
            said = _check(expected, self.repo_type, manifest, bundles, trusted, now)
        except (InvalidInput, TrustError) as exc:
            return Word(UpstreamSignature(UpstreamVerdict.REJECTED, exc.message, issuer=_ISSUER))
        except Refusal as exc:
            rejected = UpstreamVerdict.REJECTED
            return Word(
                UpstreamSignature(
                    rejected,
                    f"attestations of {trusted.site}: {exc.message}",
                    trusted.site,
                    _ISSUER,
                    bundles=digests,
                ),
                document,
            )
        verified = UpstreamVerdict.VERIFIED
        return Word(
            UpstreamSignature(verified, said, trusted.site, _ISSUER, bundles=digests), document
        )

    def revoked(self, manifest: Manifest, now: datetime) -> str:
        """Return why it revoked these bytes, or nothing; raises TrustError, UpstreamError."""
        revoked = self.trusted(now).revoked_digests
        for digest in (manifest.digest, *(entry.digest for entry in manifest.files)):
            if (found := revoked.get(digest)) is not None:
                return f"{self.trusted(now).site} revoked {digest}: {found.reason}"
        return ""

    def _load(self, now: datetime) -> TrustedRoot:
        what = f"trust metadata of {self.requests.url}"
        later = []
        for number in range(Root.pinned(self.root).metadata.version + 1, MAX_ROOT_STEPS):
            try:
                later.append(self._document(f"{number}.root.json", what))
            except NotFound:
                break
        try:
            others = (self._document(f"{name}.json", what) for name in _VERSIONS[1:])
            documents = TrustDocuments(later, *others)
        except NotFound as exc:
            raise TrustError(
                f"{self.requests.url} serves no trust metadata",
                hint="trust_root: is for upstreams that are a kgate; check the address",
            ) from exc
        trusted = load(self.root, documents, now=now, seen=self._seen())
        versions = {name: getattr(trusted.versions, name) for name in _VERSIONS}
        self.state.parent.mkdir(parents=True, exist_ok=True)
        replace_file(self.state, strictjson.dumps(versions))
        return trusted

    def _document(self, name: str, what: str) -> bytes:
        return self.requests.body(f"{API}/trust/{name}", what, MAX_METADATA)

    def _seen(self) -> Versions | None:
        if not self.state.exists():
            return None
        what = str(self.state)
        data = strictjson.loads(self.state.read_bytes(), what=what)
        return Versions(*(strictjson.take(data, name, int, what=what) for name in _VERSIONS))


def read_root(path: Path) -> bytes:
    """Read another site's root that a person saved; raises TrustError if it is none."""
    try:
        data = path.read_bytes()
        Root.pinned(data)
    except OSError as exc:
        raise TrustError(f"trust_root: {path} cannot be read ({exc.strerror})") from exc
    except KgateError as exc:
        raise TrustError(
            f"trust_root: {path} is not a trust root: {exc.message}",
            hint="it is the root.json that the upstream's operator gives to pods",
        ) from exc
    return data


def _parse(data: bytes, manifest: Manifest) -> tuple[bytes, ...]:
    what = "attestations of the upstream"
    document = strictjson.loads(data, what=what, max_bytes=MAX_ATTESTATIONS)
    if strictjson.take(document, "schema", str, what=what) != SCHEMA:
        raise InvalidInput(f"{what}: unknown schema")
    bundles = strictjson.take(document, "bundles", list, what=what)
    if not bundles or len(bundles) > MAX_BUNDLES:
        raise InvalidInput(f"{what} about {manifest.digest}: {len(bundles)} bundles")
    return tuple(strictjson.dumps(bundle) for bundle in bundles)


def _check(
    expected: tuple[str, KernelRef, Revision],
    repo_type: RepoType,
    manifest: Manifest,
    bundles: Sequence[bytes],
    trusted: TrustedRoot,
    now: datetime,
) -> str:
    """Return what was verified in a sentence; raises Refusal, InvalidInput.

    1. Everything that it found (import, SBOM, advisories, runs) is signed and about these bytes.
    2. Its decision lets these bytes into one of its lanes.
    """
    variant, repo, revision = expected
    kinds = []
    for data in bundles:
        bundle = Bundle.parse(data)
        statement = Statement.parse(bundle.envelope.payload)
        if statement.predicate_type in _FOUND:
            check_signature(bundle, trusted, now, Trace())
            check_subjects(statement, manifest, Trace())
        if statement.predicate_type in {*_FOUND, PREDICATE_TYPE}:
            kinds.append(statement.predicate_type)
    refusal: Rejected | None = None
    # What is in production there says more than what is on trial.
    for lane in sorted(trusted.lanes, reverse=True):
        verdict = verify(
            Expected(variant, lane, repo, revision, repo_type), manifest, bundles, trusted, now=now
        )
        if isinstance(verdict, Verified):
            return f"{trusted.site}, lane {lane}: {len(kinds)} attestations verified"
        # The reason that says most is the one of the lane it was signed for.
        if refusal is None or "decided for lane" in refusal.message:
            refusal = verdict
    if refusal is None:
        raise InvalidInput(f"{trusted.site} has no lane")
    raise Refusal(refusal.reason, refusal.message)
