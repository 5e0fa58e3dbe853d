"""Finds the attestations of one variant: in the pod's cache, then at the mirror.

A document holds the signed manifest and a list of bundles. It is kept by manifest digest, and a
small note remembers which manifest a name meant; both are hints until `verify` has looked.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from kgate_core import strictjson
from kgate_core.digest import Digest
from kgate_core.errors import InvalidInput, KgateError
from kgate_core.manifest import Manifest
from kgate_core.verify import MAX_BUNDLES

if TYPE_CHECKING:
    from kgate_client.store import DocumentStore

SCHEMA: Final = "kgate.dev/attestations/v1"
MAX_BYTES: Final = 16 * 1024**2


class AttestationSource(Protocol):
    """Where documents come from when the cache does not help."""

    def attestations(self, name: str) -> bytes:
        """Return a document; raises NotFound, UpstreamError."""


@dataclass(frozen=True, slots=True)
class Attested:
    """A manifest and the bundles that are said to be about it."""

    manifest: Manifest
    bundles: tuple[bytes, ...]

    @classmethod
    def parse(cls, data: bytes) -> Attested:
        """Read a document; raises InvalidInput."""
        what = "attestations"
        document = strictjson.loads(data, what=what, max_bytes=MAX_BYTES)
        if strictjson.take(document, "schema", str, what=what) != SCHEMA:
            raise InvalidInput(f"{what}: unknown schema {document['schema']!r}")
        try:
            manifest = base64.b64decode(
                strictjson.take(document, "manifest", str, what=what), validate=True
            )
        except (binascii.Error, ValueError) as exc:
            raise InvalidInput(f"{what}: the manifest is not base64") from exc
        bundles = strictjson.take(document, "bundles", list, what=what)
        return cls(Manifest.parse(manifest), tuple(strictjson.dumps(bundle) for bundle in bundles))

    def to_bytes(self) -> bytes:
        """Return the document as the mirror serves and the cache keeps it."""
        return strictjson.dumps(
            {
                "schema": SCHEMA,
                "manifest": base64.b64encode(self.manifest.canonical).decode("ascii"),
                "bundles": [strictjson.loads(bundle, what="bundle") for bundle in self.bundles],
            }
        )


class AttestationFinder:
    """Looks up attestations; `source` is None when offline."""

    def __init__(self, store: DocumentStore, source: AttestationSource | None) -> None:
        self._store = store
        self._source = source

    @property
    def online(self) -> bool:
        """True if there is a mirror to ask."""
        return self._source is not None

    def cached(self, manifest: Digest) -> Attested | None:
        """Return what the cache holds for these very files, None if nothing usable."""
        data = self._store.read(_by_manifest(manifest))
        if data is None:
            return None
        try:
            found = Attested.parse(data)
        except InvalidInput:
            return None
        return found if found.manifest.digest == manifest else None

    def hint(self, name: str) -> Attested | None:
        """Return what the cache holds for `org/name/<revision>/<variant>`; proves nothing."""
        data = self._store.read(_by_name(name))
        try:
            return None if data is None else self.cached(Digest(data.decode("ascii", "replace")))
        except InvalidInput:
            return None

    def note(self, name: str, manifest: Digest) -> None:
        """Remember which files a name meant, once they were verified."""
        data = manifest.hex.encode("ascii")
        if self._store.read(_by_name(name)) != data:
            self._store.write(_by_name(name), data)

    def fetch(self, name: str | None, manifest: Digest) -> Attested:
        """Ask the mirror by name, or by manifest where no name is known, and remember the answer.

        Raises NotFound, UpstreamError, InvalidInput.
        """
        if self._source is None:
            raise KgateError("offline, and the cache holds no attestation")
        asked = f"by-manifest/{manifest.hex}" if name is None else name
        found = Attested.parse(self._source.attestations(asked))
        known = self.cached(found.manifest.digest)
        if known is not None:
            # The same files may stand in several served revisions: keep what was said about each.
            bundles = tuple(dict.fromkeys([*found.bundles, *known.bundles]))[:MAX_BUNDLES]
            found = Attested(found.manifest, bundles)
        self._store.write(_by_manifest(found.manifest.digest), found.to_bytes())
        if name is not None:
            self.note(name, found.manifest.digest)
        return found


def _by_manifest(manifest: Digest) -> str:
    return f"attestations/{manifest.hex}.json"


def _by_name(name: str) -> str:
    return f"names/{name}"
