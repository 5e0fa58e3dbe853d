"""JSON documents that carry their own signature, so that one file is all that travels.

The signature is a Sigstore bundle over an in-toto statement whose one subject is the sha256 of the
document's canonical bytes without the field `signature`. The predicate type tells kinds of
documents apart, so that none is taken for another. Whose key counts is the caller's affair.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from kgate_core import strictjson
from kgate_core.bundle import Bundle, Envelope
from kgate_core.digest import Digest
from kgate_core.errors import InvalidInput, TrustError
from kgate_core.statement import PAYLOAD_TYPE, Statement, Subject
from kgate_signer.sign import sign_statement

if TYPE_CHECKING:
    from collections.abc import Callable

    from kgate_core.keys import PublicKey
    from kgate_signer.keys import KeyProvider

FIELD: Final = "signature"
MAX_BYTES: Final = 64 * 1024**2  # bytes of a document: some 300,000 blobs
_LONGEST: Final = 72  # bytes: a P-256 signature in DER; Ed25519 takes 64
_HINT: Final = "A" * 44  # base64 of a sha256 always has this length


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of document: its schema and the predicate type that its signature states."""

    name: str
    schema: str
    predicate_type: str


def seal(document: dict[str, Any], kind: Kind, key: KeyProvider) -> bytes:
    """Sign a document and return its file, padded to `sealed_size`; raises TrustError."""
    bundle = strictjson.loads(sign_statement(_statement(document, kind), key), what="signature")
    data = _write(document, bundle)
    return data.ljust(sealed_size(document, kind))


def sealed_size(document: dict[str, Any], kind: Kind) -> int:
    """Return how many bytes the sealed document takes, whichever key signs it."""
    longest = Envelope(_statement(document, kind).data, PAYLOAD_TYPE, b"\0" * _LONGEST, _HINT)
    bundle = strictjson.loads(Bundle(longest, _HINT).to_bytes(), what="signature")
    return len(_write(document, bundle))


@dataclass(frozen=True, slots=True)
class Sealed:
    """A sealed document that was read; nothing in it is believed before `check`."""

    document: dict[str, Any]
    kind: Kind
    digest: Digest
    """Of the canonical bytes: the document's name."""
    bundle: Bundle

    @classmethod
    def parse(cls, data: bytes, kind: Kind) -> Sealed:
        """Read a file; raises InvalidInput, for a newer schema with the advice to upgrade."""
        document = strictjson.loads(data, what=kind.name, max_bytes=MAX_BYTES)
        schema = strictjson.take(document, "schema", str, what=kind.name)
        if schema != kind.schema:
            known, _, _ = kind.schema.rpartition("/")
            newer = schema.startswith(f"{known}/")
            raise InvalidInput(
                f"{kind.name}: its format is {schema}, this version reads {kind.schema}",
                hint="it was written by a newer kgate: upgrade this one, then run this again"
                if newer
                else f"this is not a {kind.name}",
            )
        signature = strictjson.take(document, FIELD, dict, what=kind.name)
        rest = {name: value for name, value in document.items() if name != FIELD}
        bundle = Bundle.parse(strictjson.dumps(signature))
        return cls(rest, kind, Digest.of(strictjson.dumps(rest)), bundle)

    def check(self, find: Callable[[str], PublicKey | None]) -> PublicKey:
        """Return the key that signed it; raises TrustError.

        `find` gets the hint of a key and returns it if it may sign such documents.
        """
        name = self.kind.name
        key = find(self.bundle.hint)
        if key is None:
            raise TrustError(
                f"the {name} is signed by the key {self.bundle.hint}, which may not sign it here",
                hint="ask its sender which key signed it, over another way than this file",
            )
        if not key.verify(self.bundle.envelope.signature, self.bundle.envelope.signed_bytes):
            raise TrustError(f"the signature of the {name} is not one of the key {key.hint}")
        if self.bundle.envelope.payload_type != PAYLOAD_TYPE:
            raise TrustError(f"the signature of the {name} is over another kind of payload")
        statement = Statement.parse(self.bundle.envelope.payload)
        if statement.predicate_type != self.kind.predicate_type:
            raise TrustError(f"the signature is one over {statement.predicate_type}")
        if statement.subjects != (Subject(name, self.digest),):
            raise TrustError(
                f"the {name} is not the one that was signed",
                hint="it was changed after signing: get it again from its sender",
            )
        return key


def _statement(document: dict[str, Any], kind: Kind) -> Statement:
    subject = Subject(kind.name, Digest.of(strictjson.dumps(document)))
    return Statement.of((subject,), kind.predicate_type, {})


def _write(document: dict[str, Any], bundle: dict[str, Any]) -> bytes:
    # One level of lines: a person can read it, and a long list does not become a million lines.
    lines = [
        f" {json.dumps(name)}: {strictjson.dumps(value).decode()}"
        for name, value in {**document, FIELD: bundle}.items()
    ]
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()
