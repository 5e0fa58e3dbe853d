from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from kgate_core import strictjson
from kgate_core.bundle import MAX_TIMESTAMPS, Bundle, Envelope
from kgate_core.errors import InvalidInput

SIGNED = Bundle(Envelope(b"payload", "text/plain", b"\x01\x02", "hint"), "hint")


def change(path: str, value: Any) -> bytes:
    """Return the bundle with one field replaced, or removed if the value is None."""
    document = json.loads(SIGNED.to_bytes())
    *parents, last = path.split(".")
    place = document
    for name in parents:
        place = place[int(name)] if name.isdigit() else place[name]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return strictjson.dumps(document)


def test_a_bundle_is_read_back_as_it_was_written() -> None:
    assert Bundle.parse(SIGNED.to_bytes()) == SIGNED
    stamped = Bundle(SIGNED.envelope, "hint", (b"one", b"two"))
    assert Bundle.parse(stamped.to_bytes()) == stamped
    material = json.loads(SIGNED.to_bytes())["verificationMaterial"]
    assert material == {"publicKey": {"hint": "hint"}, "tlogEntries": []}


def test_the_key_hint_stands_in_both_places() -> None:
    document = json.loads(SIGNED.to_bytes())
    assert document["dsseEnvelope"]["signatures"][0]["keyid"] == "hint"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (change("mediaType", "application/vnd.dev.sigstore.bundle+json;version=0.2"), "media type"),
        (change("more", 1), "unknown field 'more'"),
        (change("verificationMaterial.publicKey", None), "signed by a certificate"),
        (change("verificationMaterial.certificate", {"rawBytes": ""}), "unknown field 'cert"),
        (change("verificationMaterial.publicKey", []), "should be dict"),
        (change("verificationMaterial.publicKey.hint", None), "'hint' is missing"),
        (change("verificationMaterial.publicKey.hint", "other"), "keyid differ"),
        (change("verificationMaterial.timestampVerificationData", []), "should be an object"),
        (
            change(
                "verificationMaterial.timestampVerificationData",
                {"rfc3161Timestamps": [{"signedTimestamp": ""}] * (MAX_TIMESTAMPS + 1)},
            ),
            "at most 8",
        ),
        (
            change("verificationMaterial.timestampVerificationData", {"rfc3161Timestamps": 1}),
            "at most 8",
        ),
        (
            change("verificationMaterial.timestampVerificationData", {"rfc3161Timestamps": [1]}),
            "expected an object",
        ),
        (change("dsseEnvelope", None), "'dsseEnvelope' is missing"),
        (change("dsseEnvelope.alg", "none"), "unknown field 'alg'"),
        (change("dsseEnvelope.signatures", []), "0 signatures"),
        (change("dsseEnvelope.signatures", [{"sig": "AQI=", "keyid": "hint"}] * 2), "2 signatures"),
        (change("dsseEnvelope.signatures", ["x"]), "expected an object"),
        (change("dsseEnvelope.signatures.0.keyid", None), "'keyid' is missing"),
        (change("dsseEnvelope.signatures.0.alg", "RS256"), "unknown field 'alg'"),
        (change("dsseEnvelope.signatures.0.sig", ""), "signature of 0 bytes"),
        (
            change("dsseEnvelope.signatures.0.sig", base64.b64encode(b"x" * 513).decode()),
            "signature of 513 bytes",
        ),
        (change("dsseEnvelope.payload", "cGF5bG9hZA"), "payload is not base64"),
        (change("dsseEnvelope.payload", "cGF5bG9hZA==\n"), "payload is not base64"),
        (change("dsseEnvelope.payload", "cGF5bG9hZB=="), "not in canonical base64"),
        (change("dsseEnvelope.payload", "cGF5_G9h"), "payload is not base64"),
        (change("dsseEnvelope.payload", "ü"), "payload is not base64"),
        (b"{}", "'mediaType' is missing"),
        (b"[]", "expected an object"),
    ],
)
def test_odd_bundles_are_refused_with_the_reason(data: bytes, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        Bundle.parse(data)


def test_no_single_byte_can_be_changed_without_changing_what_is_read() -> None:
    data = SIGNED.to_bytes()
    for place in range(len(data)):
        changed = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        try:
            found = Bundle.parse(changed)
        except InvalidInput:
            continue
        assert found != SIGNED
