from __future__ import annotations

import json
from typing import Any

import pytest

from kgate_core import strictjson
from kgate_core.errors import InvalidInput, TrustError
from kgate_core.keys import Algorithm
from kgate_mirror_server.bundle.sealed import Kind, Sealed, seal, sealed_size
from kgate_signer.keys import FileKey

KIND = Kind("thing.json", "kgate.dev/thing/v1", "https://kgate.dev/thing/v1")
OTHER = Kind("thing.json", "kgate.dev/thing/v1", "https://kgate.dev/other/v1")
DOCUMENT = {"schema": KIND.schema, "says": "hello", "list": [1, 2, {"a": None}]}


def changed(data: bytes, **fields: Any) -> bytes:
    return json.dumps(json.loads(data) | fields).encode()


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_whatever_key_signs_the_size_is_the_one_foretold(algorithm: Algorithm) -> None:
    for _ in range(8):
        key = FileKey.generate(algorithm)
        data = seal(DOCUMENT, KIND, key)
        assert len(data) == sealed_size(DOCUMENT, KIND)
        sealed = Sealed.parse(data, KIND)
        assert sealed.document == DOCUMENT
        assert sealed.check({key.public_key().hint: key.public_key()}.get) == key.public_key()


def test_a_person_can_read_it_line_by_line() -> None:
    lines = seal(DOCUMENT, KIND, FileKey.generate()).decode().splitlines()
    assert lines[2] == ' "says": "hello",'


def test_spaces_and_order_may_change_but_no_value() -> None:
    key = FileKey.generate()
    data = seal(DOCUMENT, KIND, key)
    known = {key.public_key().hint: key.public_key()}.get
    again = json.dumps(json.loads(data), indent=4, sort_keys=True).encode()
    assert Sealed.parse(again, KIND).check(known) == key.public_key()
    with pytest.raises(TrustError, match="not the one that was signed"):
        Sealed.parse(changed(data, says="bye"), KIND).check(known)


def test_a_key_that_is_not_known_is_refused() -> None:
    data = seal(DOCUMENT, KIND, FileKey.generate())
    with pytest.raises(TrustError, match="may not sign"):
        Sealed.parse(data, KIND).check(lambda _hint: None)


def test_a_signature_by_another_key_under_a_known_hint_is_refused() -> None:
    real, other = FileKey.generate(), FileKey.generate()
    data = seal(DOCUMENT, KIND, other)
    with pytest.raises(TrustError, match="is not one of the key"):
        Sealed.parse(data, KIND).check(lambda _hint: real.public_key())


def test_one_kind_of_document_is_never_taken_for_another() -> None:
    key = FileKey.generate()
    data = seal(DOCUMENT, OTHER, key)
    with pytest.raises(TrustError, match="one over https"):
        Sealed.parse(data, KIND).check(lambda _hint: key.public_key())


def test_a_signature_over_another_payload_type_is_refused() -> None:
    key = FileKey.generate()
    document = json.loads(seal(DOCUMENT, KIND, key))
    payload = strictjson.dumps({})
    from kgate_core.bundle import Bundle, Envelope, pae

    signature = key.sign(pae("text/plain", payload))
    hint = key.public_key().hint
    bundle = Bundle(Envelope(payload, "text/plain", signature, hint), hint)
    document["signature"] = json.loads(bundle.to_bytes())
    with pytest.raises(TrustError, match="another kind of payload"):
        Sealed.parse(json.dumps(document).encode(), KIND).check(lambda _hint: key.public_key())


def test_a_future_format_says_what_to_upgrade_and_a_strange_one_does_not() -> None:
    data = seal(DOCUMENT, KIND, FileKey.generate())
    with pytest.raises(InvalidInput, match="thing/v2") as caught:
        Sealed.parse(changed(data, schema="kgate.dev/thing/v2"), KIND)
    assert "upgrade" in caught.value.hint
    with pytest.raises(InvalidInput) as caught:
        Sealed.parse(changed(data, schema="kgate.dev/lock/v1"), KIND)
    assert "not a thing.json" in caught.value.hint
