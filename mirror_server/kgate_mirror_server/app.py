"""The mirror put together: the one place on the server where ports get their real adapters.

Everything below takes what it needs as arguments. Nothing is decided, fetched or served here.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING

from kgate_core.errors import TrustError
from kgate_mirror_server.catalog.audit import AuditLog
from kgate_mirror_server.catalog.claims import Claims, open_claims
from kgate_mirror_server.catalog.keeping import SqlKeeping
from kgate_mirror_server.catalog.sql import SqlCatalog
from kgate_mirror_server.events import deliver
from kgate_mirror_server.ingest.evidence import EvidenceRoom
from kgate_mirror_server.rulebook import RuleBook, question
from kgate_mirror_server.settings.serving import alarm_settings, serve_settings
from kgate_mirror_server.store.disk import READ_CHUNK
from kgate_mirror_server.store.opening import local_folder, object_place, open_store
from kgate_mirror_server.trust.exceptions import Exceptions, read_exceptions
from kgate_mirror_server.trust.files import read_pinned, read_trust
from kgate_mirror_server.trust.withheld import with_withheld
from kgate_signer.attest import Attestor
from kgate_signer.keys import (
    ANY,
    APPROVED,
    FileKey,
    check_allowed,
    from_uri,
    read_private_file,
)
from kgate_signer.timestamps import HttpStamper, authority_from
from kgate_signer.upstream import HUGGING_FACE, Publisher, UpstreamVerifier, shipped_root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from sqlalchemy import Connection

    from kgate_core.digest import Digest
    from kgate_core.evidence import Decision, Evidence, Facts, ScanReport
    from kgate_core.kernel import KernelId
    from kgate_core.keys import Algorithm
    from kgate_core.manifest import FileEntry, Manifest
    from kgate_core.timestamp import Authority
    from kgate_core.trust import TrustedRoot
    from kgate_mirror_server.events import Event
    from kgate_mirror_server.ports import BlobStore, HubClient
    from kgate_mirror_server.serve.settings import ServeSettings
    from kgate_mirror_server.settings.site import Config, Pin
    from kgate_mirror_server.store.objects import ObjectStore
    from kgate_mirror_server.store.occupancy import OccupiedStore
    from kgate_policy import Policy
    from kgate_scanner.advisories.matching import Feed
    from kgate_signer.keys import KeyProvider
    from kgate_signer.predicates import UpstreamSignature

# SBOMs are reproducible: they bear a fixed time, not that of the run that wrote them.
SBOM_TIME = datetime(2020, 1, 1, tzinfo=UTC)


@dataclass
class Mirror:
    """One configured site; its parts are opened when they are first needed."""

    config: Config
    ask: Callable[[str], bytes | None] = lambda _name: None
    """Asks a person for the passphrase of a key; None if nobody can be asked."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Asked for the variables that upstreams' `token_env` name, and for nothing else."""
    who: Mapping[str, str] = field(default_factory=dict)
    """Who runs this, for the audit log: user, host, the CI job's identity."""
    _exceptions: Exceptions | None = field(default=None, init=False)
    _opened: set[str] = field(default_factory=set, init=False)
    _verifiers: dict[str | None, UpstreamVerifier] = field(default_factory=dict, init=False)

    @cached_property
    def store(self) -> OccupiedStore | ObjectStore:
        """The blob store; nobody removes from it before this is closed."""
        return open_store(self.config, self.claims)

    @cached_property
    def claims(self) -> Claims:
        """Who does what among all that use this site's database."""
        return open_claims(database_url(self.config), local_folder(self.config) / "locks")

    @cached_property
    def catalog(self) -> SqlCatalog:
        """The catalog."""
        return SqlCatalog(database_url(self.config), self._note)

    @cached_property
    def audit(self) -> AuditLog:
        """The audit log, written in the name of who runs this."""
        return AuditLog(self.catalog.engine, self._whoever, lambda: datetime.now(UTC))

    @cached_property
    def keeping(self) -> SqlKeeping:
        """Holds, days of use and the intake."""
        return SqlKeeping(self.catalog.engine, self._note)

    def _note(self, connection: Connection, action: str, what: Facts) -> None:
        self.audit.note(connection, action, what)

    def _whoever(self) -> dict[str, str]:
        keys = {"keys": " ".join(sorted(self._opened))} if self._opened else {}
        return {**self.who, **keys}

    @cached_property
    def upstream(self) -> HubClient:
        """Where kernels come from, unless their pin says otherwise."""
        return self.open_upstream(None)

    def open_upstream(self, name: str | None) -> HubClient:
        """Open an upstream by its name under `upstreams:`, or the default one."""
        from kgate_mirror_server.upstream import open_upstream  # noqa: PLC0415  # slow to import

        chosen = self.config.upstream if name is None else self.config.upstreams[name]
        return open_upstream(self.config, chosen, self.environment)

    @cached_property
    def room(self) -> EvidenceRoom:
        """Stored evidence."""
        return EvidenceRoom(self.store, self.catalog)

    @cached_property
    def rules(self) -> RuleBook:
        """The policies that decide."""
        return RuleBook(self.config)

    @property
    def policy(self) -> Policy:
        """The policy of lanes that have none of their own."""
        return self.rules.site

    @cached_property
    def attestor(self) -> Attestor:
        """Signs decisions with the admit key; raises TrustError if a key cannot be opened."""
        ingest = self.config.keys.ingest
        return Attestor(
            self.config.site,
            self.key(self.config.keys.admit),
            self.room,
            timedelta(days=self.config.valid_days),
            self.stamper,
            None if ingest is None else self.key(ingest),
        )

    @cached_property
    def stamper(self) -> HttpStamper | None:
        """Asks the configured timestamp authority; None if the site has none."""
        authority = self.authority(datetime.now(UTC))
        named = self.config.timestamp
        return None if named is None or authority is None else HttpStamper(named.url, authority)

    def authority(self, now: datetime) -> Authority | None:
        """Read the configured timestamp authority; raises TrustError, InvalidInput."""
        if (named := self.config.timestamp) is None:
            return None
        try:
            pem = self.config.path(named.authority).read_bytes()
        except OSError as exc:
            raise TrustError(
                f"timestamp.authority: {named.authority} cannot be read ({exc.strerror})"
            ) from exc
        return authority_from(pem, named.url, now)

    def key(self, uri: str) -> KeyProvider:
        """Open a private key; file names in its URI are relative to kgate.yaml."""
        key = self._open_key(uri)
        self._opened.add(key.public_key().hint)
        return key

    def _open_key(self, uri: str) -> KeyProvider:
        def read(name: str) -> bytes:
            return read_private_file(str(self.config.path(name)))

        name = uri.removeprefix("file:")
        if name != uri and "?" not in name and b"ENCRYPTED" in (pem := read(name)):
            passphrase = self.ask(name)
            if passphrase is not None:
                return check_allowed(FileKey.from_pem(pem, passphrase, what=name), self._allowed)
        return from_uri(uri, read_file=read, allowed=self._allowed)

    @property
    def _allowed(self) -> frozenset[Algorithm]:
        return APPROVED if self.config.approved_algorithms else ANY

    def trusted(self, now: datetime) -> TrustedRoot:
        """Return this site's own trust metadata as the mirror obeys it.

        To what is signed come revocations that still wait for the root key.
        """
        return with_withheld(self.signed_trust(now), self.config.path(self.config.trust))

    def signed_trust(self, now: datetime) -> TrustedRoot:
        """Return this site's own trust metadata, verified from the root that pods pin."""
        folder = self.config.path(self.config.trust)
        documents = read_trust(folder)
        if documents.roots[0] != read_pinned(folder):
            raise TrustError(f"{folder}: 1.root.json is not the pinned root.json")
        return documents.load(now)

    @cached_property
    def feed(self) -> Feed | None:
        """Every advisory that was imported, ready to compare with; None if there is none."""
        from kgate_mirror_server.feeds.storage import read_snapshot  # noqa: PLC0415  # many sites have none

        snapshot = read_snapshot(self.config.path(self.config.feeds.snapshot))
        return snapshot.feed() if snapshot.sources else None

    @cached_property
    def scanner_name(self) -> str:
        """Name and version of the scanner with its rules."""
        from kgate_scanner.scan import scanner_name  # noqa: PLC0415  # LIEF is slow to import

        return scanner_name()

    def scan(self, variant: str, manifest: Manifest) -> ScanReport:
        """Scan the stored bytes of a variant."""
        from kgate_scanner.scan import scan_variant  # noqa: PLC0415  # LIEF is slow to import

        @contextmanager
        def opened(entry: FileEntry) -> Iterator[Path]:
            yield self.store.path(entry.digest)

        return scan_variant(variant, manifest, opened)

    def sbom(
        self, kernel: KernelId, manifest: Manifest, metadata: Facts, report: ScanReport
    ) -> bytes:
        """Return the CycloneDX document of a variant."""
        from kgate_scanner.sbom import build_sbom  # noqa: PLC0415  # slow to import

        return build_sbom(kernel, manifest, metadata, report, timestamp=SBOM_TIME)

    def _verifier(self, name: str | None) -> UpstreamVerifier:
        """Return who is believed about what comes from an upstream."""
        if name not in self._verifiers:
            upstream = self.config.upstream if name is None else self.config.upstreams[name]
            chosen = self.config.publishers if upstream.publishers is None else upstream.publishers
            own = [Publisher(p.org, p.issuer, p.repository, p.workflows) for p in chosen]
            # An upstream with a list of its own believes nobody besides.
            built_in = [HUGGING_FACE] if upstream.publishers is None else []
            self._verifiers[name] = UpstreamVerifier((*built_in, *own), self._sigstore_root)
        return self._verifiers[name]

    @cached_property
    def _sigstore_root(self) -> bytes:
        named = self.config.sigstore_root
        try:
            return shipped_root() if named is None else self.config.path(named).read_bytes()
        except OSError as exc:
            raise TrustError(f"sigstore_root: {named} cannot be read ({exc.strerror})") from exc

    def check_publisher(self, pin: Pin, manifest: Manifest) -> UpstreamSignature:
        """Return the verdict on the publisher's own signature over stored bytes."""
        verifier = self._verifier(pin.upstream)
        return verifier.check(pin.ref, pin.version, manifest, _Stored(self.store))

    def exceptions(self, now: datetime) -> Exceptions:
        """Return the site's exceptions, read and checked once; raises as `read_exceptions`."""
        if self._exceptions is None:
            self._exceptions = read_exceptions(self, now)
        return self._exceptions

    def decide(self, evidence: Evidence, now: datetime, policy: Policy | None = None) -> Decision:
        """Ask the lane's policy, or another one, the tenants', and apply the exceptions."""
        decision = question(self, evidence, now, policy).decide(judge=self.rules.worker)
        said = self.exceptions(now).about(evidence.kernel.repo)
        return replace(decision, results=(*decision.results, *said))

    def attestor_for(self, manifest: Digest, now: datetime) -> Attestor:
        """Return the attestor of a decision that rests on exceptions no longer than they last."""
        ends = self.exceptions(now).ends(manifest, now)
        if ends is None:
            return self.attestor
        return replace(self.attestor, lifetime=min(self.attestor.lifetime, ends - now))

    def announce(self, events: Sequence[Event], now: datetime) -> str:
        """Tell the webhook; return why it may not know, or nothing. Raises nothing."""

        def read(name: Path) -> bytes:
            return read_private_file(str(self.config.path(name)))

        return deliver(self.config.events, self.config.site, events, now, read_file=read)

    def serve_settings(self, *, host: str | None = None, port: int | None = None) -> ServeSettings:
        """Return how this site serves, with the command line's choices."""
        config = self.config
        settings = serve_settings(
            config.serve,
            config.models,
            config.path,
            database=database_url(config),
            store=local_folder(config),
            objects=object_place(config),
            trust=config.path(config.trust),
            lane=config.lane,
        )
        return replace(
            settings,
            host=host or settings.host,
            port=port or settings.port,
            alarm=alarm_settings(config.events, config.site, config.path),
        )

    def close(self) -> None:
        """Give back what was opened."""
        if "rules" in self.__dict__:
            self.rules.close()
        if "catalog" in self.__dict__:
            self.catalog.close()
        if "store" in self.__dict__:
            self.store.close()
        if "claims" in self.__dict__:
            self.claims.close()


@dataclass(frozen=True, slots=True)
class _Stored:
    """The files of a variant that are in the store, as the signer reads them."""

    store: BlobStore

    def open(self, entry: FileEntry, /) -> Iterator[bytes]:
        with self.store.open(entry.digest) as stream:
            while chunk := stream.read(READ_CHUNK):
                yield chunk


def database_url(config: Config) -> str:
    """Return the database URL with a SQLite file relative to kgate.yaml made absolute."""
    prefix = "sqlite:///"
    url = config.database
    if not url.startswith(prefix) or url.startswith(f"{prefix}/"):
        return url
    path = config.path(url.removeprefix(prefix))
    path.parent.mkdir(parents=True, exist_ok=True)
    return f"{prefix}{path}"
