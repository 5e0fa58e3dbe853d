"""A change of trust that several people sign one after the other, each on a machine of their own.

A pending change is one JSON file: the documents it starts from, and the new root, targets and
snapshot with the signatures so far. Whoever signs verifies both from the root they pinned, so the
file may travel by any way. It changes nothing by itself: the site publishes it when enough have
signed. What a change means is said by `trustdifference`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from tuf.api.metadata import (  # type: ignore[attr-defined]  # re-exports without __all__
    Metadata,
    Root,
    Snapshot,
    Targets,
)
from tuf.api.serialization.json import JSONSerializer

from kgate_core import strictjson
from kgate_core.errors import Conflict, InvalidInput, TrustError
from kgate_core.trust import FIELD
from kgate_signer.devices import PortSigner
from kgate_signer.trustwriter import TrustSet, check_authentic, read_document

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kgate_signer.keys import KeyProvider

SCHEMA: Final = "kgate.dev/pending-trust/v1"
MAX_BYTES: Final = 64 * 1024**2  # of a pending change with all roots


@dataclass(frozen=True, slots=True)
class Missing:
    """Signatures that one document still lacks."""

    document: str
    """Such as `targets.json`."""
    signed: int
    threshold: int
    holders: tuple[str, ...]
    """Ids of the keys that could still sign."""


@dataclass(frozen=True, slots=True)
class Pending:
    """A change between two sets of documents; the timestamp is not part of it."""

    base: TrustSet
    drafted: TrustSet

    def to_json(self) -> bytes:
        """Return the file that travels from holder to holder."""
        document = {
            "schema": SCHEMA,
            "base": _texts(self.base),
            "drafted": _texts(self.drafted),
        }
        return strictjson.dumps(document)

    @classmethod
    def from_json(cls, data: bytes) -> Pending:
        """Read what `to_json` wrote; raises InvalidInput. Nothing of it is verified yet."""
        what = "a pending change of trust"
        document = strictjson.loads(data, what=what, max_bytes=MAX_BYTES)
        if (schema := strictjson.take(document, "schema", str, what=what)) != SCHEMA:
            raise InvalidInput(f"{what}: unknown schema {schema!r}", hint=f"this kgate: {SCHEMA}")
        return cls(
            *(
                _from_texts(strictjson.take(document, name, dict, what=what), f"{what}: {name}")
                for name in ("base", "drafted")
            )
        )

    def check(self, pinned_root: bytes) -> None:
        """Raise TrustError unless it starts from documents of this root and only goes forward.

        Whether enough people have signed is not looked at; signatures that are there count only if
        they are right.
        """
        check_authentic(self.base, pinned_root)
        before, after = self.base, self.drafted
        count = len(before.roots)
        if after.roots[:count] != before.roots or len(after.roots) > count + 1:
            raise TrustError("the pending change rewrites the roots that came before")
        old, new = (read_document(trust.roots[-1], Root).signed for trust in (before, after))
        if new.version != len(after.roots) or old.version != count:
            raise TrustError(f"root version {new.version} cannot follow {old.version}")
        for name, kind in (("targets", Targets), ("snapshot", Snapshot)):
            was, will = (
                read_document(getattr(trust, name), kind).signed.version  # type: ignore[type-var]  # both kinds are documents
                for trust in (before, after)
            )
            if will <= was:
                raise TrustError(f"{name}.json version {will} cannot follow {was}")
        listed = read_document(after.snapshot, Snapshot).signed.meta.get("targets.json")
        version = read_document(after.targets, Targets).signed.version
        if listed is None or listed.version != version:
            raise TrustError(f"the snapshot does not name targets.json version {version}")

    def missing(self) -> tuple[Missing, ...]:
        """Return what lacks signatures; empty once it can be published."""
        found = []
        for name, document, authorities in _documents(self):
            for authority in authorities:
                result = authority.get_verification_result(
                    document.signed.type, document.signed_bytes, document.signatures
                )
                if not result.verified:
                    signed, unsigned = len(result.signed), tuple(sorted(result.unsigned))
                    found.append(Missing(name, signed, result.threshold, unsigned))
        return tuple(found)

    def replaced(self) -> dict[str, str]:
        """Return the id of each key that takes one other's place, with that other's id."""
        pairs = []
        old, new = (read_document(t.roots[-1], Root).signed for t in (self.base, self.drafted))
        for role in ("root", "timestamp"):
            was, will = set(old.roles[role].keyids), set(new.roles[role].keyids)
            pairs.append((will - was, was - will))
        before, after = (_keys(trust) for trust in (self.base, self.drafted))
        ended = {keyid for keyid in before.keys() & after.keys() if before[keyid] != after[keyid]}
        pairs.append((after.keys() - before.keys(), ended))
        return {min(come): min(gone) for come, gone in pairs if len(come) == len(gone) == 1}

    def signed_by(self, keys: Sequence[KeyProvider]) -> Pending:
        """Return it with the signatures of these keys added.

        Raises TrustError for a key that holds no role in it, Conflict for one that signed already.
        """
        publics = {key.public_key().keyid: key for key in keys}
        written = dict.fromkeys(publics, 0)
        held = dict.fromkeys(publics, 0)
        signed: dict[str, bytes] = {}
        for name, document, authorities in _documents(self):
            role = document.signed.type
            wanted = {keyid for authority in authorities for keyid in authority.roles[role].keyids}
            for keyid in sorted(wanted & set(publics)):
                held[keyid] += 1
                if keyid in document.signatures:
                    continue
                # Not through `document.sign`, which wraps a device's error in its own.
                document.signatures[keyid] = PortSigner(publics[keyid]).sign(document.signed_bytes)
                written[keyid] += 1
            signed[name] = document.to_bytes(JSONSerializer(compact=False))
        for keyid in publics:
            if not held[keyid]:
                raise TrustError(
                    f"the key {keyid[:16]}… signs no trust metadata of this site",
                    hint="bring the private key of a holder of the root; `kgate keys list` names"
                    " them",
                )
            if not written[keyid]:
                raise Conflict(f"the key {keyid[:16]}… has signed this change already")
        drafted = replace(
            self.drafted, targets=signed["targets.json"], snapshot=signed["snapshot.json"]
        )
        if "root.json" in signed:
            drafted = replace(drafted, roots=(*self.base.roots, signed["root.json"]))
        return replace(self, drafted=drafted)


def _documents(pending: Pending) -> Iterator[tuple[str, Metadata[Any], tuple[Root, ...]]]:
    """Yield each new document, and whose keys have to agree on it."""
    before, after = pending.base, pending.drafted
    old, new = (read_document(trust.roots[-1], Root) for trust in (before, after))
    if len(after.roots) > len(before.roots):
        yield "root.json", new, (old.signed, new.signed)
    yield "targets.json", read_document(after.targets, Targets), (new.signed,)
    yield "snapshot.json", read_document(after.snapshot, Snapshot), (new.signed,)


def _keys(trust: TrustSet) -> dict[str, Any]:
    own = read_document(trust.targets, Targets).signed.unrecognized_fields
    what = "targets.json"
    return strictjson.take(strictjson.take(own, FIELD, dict, what=what), "keys", dict, what=what)


def _texts(trust: TrustSet) -> dict[str, str]:
    return {name: data.decode() for name, data in trust.files.items()}


def _from_texts(documents: dict[str, Any], what: str) -> TrustSet:
    return TrustSet.from_files(
        {name: strictjson.take(documents, name, str, what=what).encode() for name in documents}
    )
