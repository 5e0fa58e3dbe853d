"""DSSE envelopes inside Sigstore bundles v0.3, signed by a key that a hint names.

Formats: DSSE v1.0.2 (protocol.md for PAE, envelope.md) and sigstore_bundle.proto of Sigstore's
protobuf-specs, in its JSON form. One signature per bundle; the hint in the verification material
and the `keyid` of the signature are the same string, as the bundle format demands. Bundles that
carry a certificate are refused: keyless signatures are checked where they enter, on the server.
Parsing is no verification: see `verify`.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any, Final

from kgate_core import strictjson
from kgate_core.errors import InvalidInput

MEDIA_TYPE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
MAX_TIMESTAMPS: Final = 8
_MAX_SIGNATURE: Final = 512  # bytes; P-256 in DER takes at most 72


def pae(payload_type: str, payload: bytes) -> bytes:
    """Return DSSE's pre-authentication encoding: the bytes that are really signed."""
    kind = payload_type.encode("utf-8")
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


@dataclass(frozen=True, slots=True)
class Envelope:
    """A payload with one signature over its PAE; `keyid` is a hint, not a claim."""

    payload: bytes
    payload_type: str
    signature: bytes
    keyid: str

    @property
    def signed_bytes(self) -> bytes:
        """The bytes that the signature covers."""
        return pae(self.payload_type, self.payload)

    def to_json(self) -> dict[str, Any]:
        """Return the envelope as its JSON object."""
        return {
            "payload": _encode(self.payload),
            "payloadType": self.payload_type,
            "signatures": [{"keyid": self.keyid, "sig": _encode(self.signature)}],
        }

    @classmethod
    def from_json(cls, data: strictjson.JsonValue) -> Envelope:
        """Read a JSON envelope; raises InvalidInput unless it has exactly one signature."""
        what = "envelope"
        payload = _decode(strictjson.take(data, "payload", str, what=what), what=f"{what}: payload")
        payload_type = strictjson.take(data, "payloadType", str, what=what)
        signatures = strictjson.take(data, "signatures", list, what=what)
        strictjson.refuse_unknown(data, {"payload", "payloadType", "signatures"}, what=what)
        if len(signatures) != 1:
            raise InvalidInput(f"{what}: {len(signatures)} signatures, expected exactly one")
        entry = signatures[0]
        signature = _decode(
            strictjson.take(entry, "sig", str, what=what), what=f"{what}: signature"
        )
        strictjson.refuse_unknown(entry, {"sig", "keyid"}, what=what)
        if not 1 <= len(signature) <= _MAX_SIGNATURE:
            raise InvalidInput(f"{what}: a signature of {len(signature)} bytes")
        return cls(
            payload, payload_type, signature, strictjson.take(entry, "keyid", str, what=what)
        )


@dataclass(frozen=True, slots=True)
class Bundle:
    """One key-signed attestation as other tools read it."""

    envelope: Envelope
    hint: str
    """base64 of the sha256 of the signer's public key; says which key to try, proves nothing."""
    timestamps: tuple[bytes, ...] = ()
    """RFC 3161 responses in DER over the signature; not checked here."""

    def to_bytes(self) -> bytes:
        """Return the bundle in canonical JSON bytes."""
        material: dict[str, Any] = {"publicKey": {"hint": self.hint}, "tlogEntries": []}
        if self.timestamps:
            stamps = [{"signedTimestamp": _encode(stamp)} for stamp in self.timestamps]
            material["timestampVerificationData"] = {"rfc3161Timestamps": stamps}
        return strictjson.dumps(
            {
                "mediaType": MEDIA_TYPE,
                "verificationMaterial": material,
                "dsseEnvelope": self.envelope.to_json(),
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> Bundle:
        """Read a bundle; raises InvalidInput for other versions, certificates and odd encodings."""
        what = "bundle"
        document = strictjson.loads(data, what=what)
        if strictjson.take(document, "mediaType", str, what=what) != MEDIA_TYPE:
            raise InvalidInput(f"{what}: media type {document['mediaType']!r} is not {MEDIA_TYPE}")
        material = strictjson.take(document, "verificationMaterial", dict, what=what)
        envelope = Envelope.from_json(strictjson.take(document, "dsseEnvelope", dict, what=what))
        strictjson.refuse_unknown(
            document, {"mediaType", "verificationMaterial", "dsseEnvelope"}, what=what
        )
        if "publicKey" not in material:
            raise InvalidInput(
                f"{what}: signed by a certificate, not by a key",
                hint="keyless bundles are verified on the mirror; pods read key-signed ones",
            )
        strictjson.refuse_unknown(
            material, {"publicKey", "tlogEntries", "timestampVerificationData"}, what=what
        )
        key = strictjson.take(material, "publicKey", dict, what=what)
        # A key or an algorithm that came along would be the bundle's choice, not the trust root's.
        strictjson.refuse_unknown(key, {"hint"}, what=f"{what}: publicKey")
        hint = strictjson.take(key, "hint", str, what=what)
        if hint != envelope.keyid:
            raise InvalidInput(f"{what}: the key hint and the signature's keyid differ")
        return cls(envelope, hint, _parse_timestamps(material, what=what))


def _parse_timestamps(material: dict[str, Any], *, what: str) -> tuple[bytes, ...]:
    data = material.get("timestampVerificationData", {})
    if not isinstance(data, dict):
        raise InvalidInput(f"{what}: timestampVerificationData should be an object")
    stamps = data.get("rfc3161Timestamps", [])
    if not isinstance(stamps, list) or len(stamps) > MAX_TIMESTAMPS:
        raise InvalidInput(f"{what}: at most {MAX_TIMESTAMPS} timestamps")
    return tuple(
        _decode(strictjson.take(item, "signedTimestamp", str, what=what), what=f"{what}: timestamp")
        for item in stamps
    )


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _decode(text: str, *, what: str) -> bytes:
    """Read standard base64 and refuse every other spelling of the same bytes (RFC 4648 3.5)."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise InvalidInput(f"{what} is not base64") from exc
    if _encode(data) != text:
        raise InvalidInput(f"{what} is not in canonical base64")
    return data
