"""Receipts: what a receiving site holds of a sender, so that the next bundle brings the rest only.

Format: `kgate.dev/receipt/v1`, sealed. It names manifests and publications by digest and nothing
else: no host, no person, no decision. A sender that never hears back writes the same document
about what it sent. A false receipt can only make a bundle too small, which its receiver notices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from kgate_core import strictjson
from kgate_core.clock import read_time, write_time
from kgate_core.digest import Digest
from kgate_core.errors import Conflict, KgateError, NotFound, TrustError
from kgate_core.manifest import Manifest
from kgate_mirror_server.bundle.document import Base
from kgate_mirror_server.bundle.sealed import Kind, Sealed, seal
from kgate_mirror_server.bundle.senders import receiver_keys

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from kgate_mirror_server.app import Mirror
    from kgate_mirror_server.bundle.contents import Contents, Item
    from kgate_mirror_server.ingest.evidence import EvidenceRoom
    from kgate_signer.keys import KeyProvider

RECEIPT: Final = Kind("receipt.json", "kgate.dev/receipt/v1", "https://kgate.dev/receipt/v1")


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a site holds after a bundle."""

    site: str
    """Who holds it; the sender itself if it is the sender's own record."""
    sender: str
    sequence: int
    """Of the last bundle that was taken in."""
    bundle: Digest
    """Of that bundle's document."""
    written: datetime
    publications: tuple[Digest, ...]
    manifests: tuple[Digest, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the document that is signed."""
        return {
            "schema": RECEIPT.schema,
            "site": self.site,
            "sender": self.sender,
            "sequence": self.sequence,
            "bundle": str(self.bundle),
            "written": write_time(self.written),
            "publications": sorted(str(digest) for digest in self.publications),
            "manifests": sorted(str(digest) for digest in self.manifests),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Receipt:
        """Read what `to_json` wrote; raises InvalidInput."""
        what = RECEIPT.name
        return cls(
            strictjson.take(data, "site", str, what=what),
            strictjson.take(data, "sender", str, what=what),
            strictjson.take(data, "sequence", int, what=what),
            Digest.parse(strictjson.take(data, "bundle", str, what=what)),
            read_time(strictjson.take(data, "written", str, what=what), what=what),
            _digests(data, "publications"),
            _digests(data, "manifests"),
        )

    @property
    def base(self) -> Base:
        """What a differential says that it builds on."""
        return Base(Digest.of(strictjson.dumps(self.to_json())), self.sequence)

    def seal(self, key: KeyProvider) -> bytes:
        """Return the signed file; raises TrustError."""
        return seal(self.to_json(), RECEIPT, key)


def parse_receipt(data: bytes) -> tuple[Sealed, Receipt]:
    """Read a receipt and its signature, which is not checked yet; raises InvalidInput."""
    sealed = Sealed.parse(data, RECEIPT)
    return sealed, Receipt.from_json(sealed.document)


def check_receipt(data: bytes, mirror: Mirror, now: datetime) -> Receipt:
    """Return a receipt for this site, signed by a pinned receiver or by this site itself.

    Raises TrustError for other keys and Conflict if it is about another sender's bundles.
    """
    sealed, receipt = parse_receipt(data)
    if receipt.sender != mirror.config.site:
        raise Conflict(
            f"this receipt is about bundles of {receipt.sender}, this site is {mirror.config.site}"
        )
    pinned = receiver_keys(mirror.config.path(mirror.config.trust))
    if receipt.site == receipt.sender:
        trusted = mirror.trusted(now)
        pinned = {
            hint: key.public
            for hint, key in trusted.keys.items()
            if key.public.keyid not in trusted.revoked_keys
        }
    if sealed.bundle.hint not in pinned:
        raise TrustError(
            f"the receipt of {receipt.site} is signed by a key that is not pinned here",
            hint="get receipt-key.pem from the receiver (kgate bundle receipt --key), compare it,"
            " and name it once with --receiver-key",
        )
    sealed.check(pinned.get)
    return receipt


def manifests_of(items: Iterable[Item]) -> tuple[Digest, ...]:
    """Return the manifests of everything that travels."""
    found = {variant.manifest for item in items for variant in item.carried.publication.variants}
    return tuple(sorted(found))


def held_blobs(receipt: Receipt, contents: Contents, room: EvidenceRoom) -> set[Digest]:
    """Return the blobs that the receipt's writer must have, as far as this site still knows."""
    held: set[Digest] = set()
    said = set(receipt.publications)
    for item in contents.items:
        if item.document in said:
            held |= {item.document, *item.carried.blobs}
    for digest in receipt.manifests:
        try:
            manifest = Manifest.parse(room.read(digest))
        except NotFound:
            continue  # a kernel that this site removed meanwhile: then a little too much is sent
        except KgateError as exc:
            raise KgateError(f"{digest}: {exc.message}", hint="run `kgate scrub`") from exc
        held |= {digest, *(entry.digest for entry in manifest.files)}
    return held


def _digests(data: dict[str, Any], key: str) -> tuple[Digest, ...]:
    return tuple(
        Digest.parse(text) for text in strictjson.take_strings(data, key, what=RECEIPT.name)
    )
