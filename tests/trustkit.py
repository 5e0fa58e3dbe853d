"""Keys, trust metadata and signed decisions for tests, all made by the real signer.

`make_trust()` gives a site with an `experimental` lane (role admit) and a `production` lane (roles
admit and approve); its methods sign what a test wants to see accepted or refused.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from kgate_core.digest import Digest
from kgate_core.kernel import KernelId, KernelRef, RepoType, Revision
from kgate_core.manifest import FileEntry, Manifest
from kgate_core.trust import Lane, Mode, SigningKey, TrustedRoot
from kgate_core.tuf import Role
from kgate_core.vsa import Vsa
from kgate_signer.keys import FileKey
from kgate_signer.predicates import vsa_statement
from kgate_signer.sign import sign_statement
from kgate_signer.trustwriter import (
    HARD_STALENESS,
    KEY_LIFETIME,
    SOFT_STALENESS,
    Offline,
    RootKeys,
    TrustSet,
    create,
    refresh_timestamp,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

NOW: Final = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)
SITE: Final = "kgate.test"
ORIGIN: Final = "https://hub.test"
EXPERIMENTAL: Final = "experimental"
PRODUCTION: Final = "production"
POLICY: Final = Digest.of(b"the policy of the tests")
KERNEL: Final = KernelId(
    ORIGIN, RepoType.KERNEL, KernelRef("acme", "relu"), Revision("a" * 40), "torch-cpu"
)
FILES: Final = {
    "__init__.py": b"from . import layers\n",
    "layers/__init__.py": b"",
    "metadata.json": b'{"id":"relu","name":"relu","version":1}',
}


def manifest_of(files: Mapping[str, bytes] = FILES) -> Manifest:
    """Return the manifest of files given as path to bytes."""
    return Manifest.of(FileEntry(path, len(data), Digest.of(data)) for path, data in files.items())


def role_of(*keys: FileKey, threshold: int = 1) -> Role:
    """Return a role held by these keys."""
    return Role(frozenset(key.public_key().keyid for key in keys), threshold)


def lane_of(name: str, roles: Mapping[str, Role], **changes: Any) -> Lane:
    """Return a lane with the default floors; `changes` replaces fields of it."""
    lane = Lane(
        name,
        Mode.ENFORCE,
        roles,
        frozenset({ORIGIN}),
        frozenset({POLICY}),
        SOFT_STALENESS,
        HARD_STALENESS,
    )
    return replace(lane, **changes)


def signing_key(key: FileKey, now: datetime = NOW) -> SigningKey:
    """Return a key's public half with a validity around `now`."""
    return SigningKey(key.public_key(), now - timedelta(days=1), now + KEY_LIFETIME)


@dataclass(frozen=True)
class TrustKit:
    """A site's private keys and its trust documents."""

    root: FileKey
    timestamp: FileKey
    admit: FileKey
    approve: FileKey
    trust: TrustSet
    now: datetime

    @property
    def pinned(self) -> bytes:
        """The root that pods pin."""
        return self.trust.roots[0]

    @property
    def offline(self) -> Offline:
        """What the person brings who changes trust."""
        return Offline(self.pinned, (self.root,))

    def trusted(self) -> TrustedRoot:
        """Return the documents as a pod reads them."""
        return self.trust.load(self.now)

    def changed(self, trust: TrustSet) -> TrustKit:
        """Return a kit with changed documents, under a fresh timestamp."""
        return replace(self, trust=refresh_timestamp(trust, self.timestamp, now=self.now))

    def vsa(self, manifest: Manifest, **changes: Any) -> Vsa:
        """Return a decision that the experimental lane accepts; `changes` replaces fields."""
        vsa = Vsa(
            kernel=KERNEL,
            upstream_revision=KERNEL.revision,
            lane=EXPERIMENTAL,
            site=SITE,
            manifest=manifest.digest,
            metadata_id="relu",
            depends=(),
            policy_uri="kgate:policy/baseline",
            policy_digest=POLICY,
            passed=True,
            verified_at=self.now,
            valid_until=self.now + timedelta(days=30),
        )
        return replace(vsa, **changes)

    def bundle(self, manifest: Manifest, key: FileKey | None = None, **changes: Any) -> bytes:
        """Return a signed decision about a manifest, by the admit key unless told otherwise."""
        vsa = self.vsa(manifest, **changes)
        return sign_statement(vsa_statement(manifest, vsa), key or self.admit)


def make_trust(*lanes: Lane, now: datetime = NOW, keys: tuple[FileKey, ...] = ()) -> TrustKit:
    """Make a new site with fresh keys; `lanes` and `keys` add to the two of each that it has."""
    root, timestamp, admit, approve = (FileKey.generate() for _ in range(4))
    trust = create(
        SITE,
        (
            lane_of(EXPERIMENTAL, {"admit": role_of(admit)}),
            lane_of(PRODUCTION, {"admit": role_of(admit), "approve": role_of(approve)}),
            *lanes,
        ),
        tuple(signing_key(key, now) for key in (admit, approve, *keys)),
        RootKeys((root.public_key(),), (root.public_key(),), (timestamp.public_key(),)),
        offline=(root,),
        timestamp=timestamp,
        now=now,
    )
    return TrustKit(root, timestamp, admit, approve, trust, now)
