"""A signed statement whose subject is the digest of an OCI manifest, for tools that start there.

kgate's own attestations are about files and kgate's manifest; `cosign verify-attestation` compares
the digest of the image that it was given. So a push signs once more: that this OCI manifest is that
publication. Manifests are rebuilt from stored evidence, and only while the publication's own
attestations count. Pods and other sites never read this statement.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kgate_core.bundle import Bundle
from kgate_core.digest import Digest
from kgate_core.errors import KgateError, TrustError
from kgate_core.statement import Statement, Subject
from kgate_mirror_server.bundle.contents import check_attestations
from kgate_mirror_server.bundle.exporting import bundle_key
from kgate_signer.sign import sign_statement

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from kgate_mirror_server.app import Mirror
    from kgate_mirror_server.bundle.carried import Carried
    from kgate_mirror_server.oci.registry import Repository
    from kgate_mirror_server.oci.shape import Descriptor
    from kgate_mirror_server.ports import PublishedVariant
    from kgate_signer.keys import KeyProvider

PREDICATE: Final = "https://kgate.dev/oci/v1"
_ANNOTATION: Final = "dev.sigstore.bundle.predicateType"
_MAX_BUNDLE: Final = 4 * 1024**2  # bytes


@dataclass(frozen=True, slots=True)
class Binder:
    """Signs for one site what its OCI manifests are."""

    key: KeyProvider
    site: str

    def bind(
        self, carried: Carried, manifest: Descriptor, variants: Sequence[PublishedVariant]
    ) -> bytes:
        """Return a signed bundle that names an OCI manifest; raises TrustError."""
        return sign_statement(self.statement(carried, manifest, variants), self.key)

    def statement(
        self, carried: Carried, manifest: Descriptor, variants: Sequence[PublishedVariant]
    ) -> Statement:
        """Return what is signed; equal publications give equal bytes."""
        item = carried.publication
        predicate = {
            "site": self.site,
            "origin": item.origin,
            "type": str(item.repo_type),
            "repo": str(item.repo),
            "served": str(item.served),
            "upstream": str(item.upstream),
            "lane": item.lane,
            "variants": {variant.variant: str(variant.manifest) for variant in variants},
        }
        return Statement.of((Subject(str(item.repo), manifest.digest),), PREDICATE, predicate)

    def bound(self, repository: Repository, manifest: Descriptor, statement: Statement) -> bool:
        """Return whether this very statement hangs there already, signed by this key."""
        public = self.key.public_key()
        for found in repository.referrers(manifest.digest):
            if found.annotations.get(_ANNOTATION, PREDICATE) != PREDICATE:
                continue
            try:
                (layer,) = repository.manifest(found.digest).descriptors("layers")
                if layer.size > _MAX_BUNDLE:
                    continue
                data = b"".join(repository.pull_blob(layer.digest, layer.size))
                envelope = Bundle.parse(data).envelope
            except (KgateError, ValueError):
                continue  # somebody else's
            if envelope.payload == statement.data and public.verify(
                envelope.signature, envelope.signed_bytes
            ):
                return Digest.of(data) == layer.digest
        return False


def open_binder(mirror: Mirror, now: datetime) -> Binder:
    """Return what signs for this site; raises TrustError if nobody would believe the key."""
    return Binder(bundle_key(mirror, mirror.trusted(now), now), mirror.config.site)


def check_proven(mirror: Mirror, carried: Carried, now: datetime) -> None:
    """Raise TrustError unless every variant's own attestations count today."""
    item = carried.publication
    trusted = mirror.trusted(now)
    for variant in item.variants:
        if (reason := check_attestations(mirror, item, variant, trusted, now)) is not None:
            raise TrustError(
                f"{item.repo}@{item.served.short} {variant.variant} is not pushed: {reason}",
                hint="run kgate sync, or name other kernels",
            )
