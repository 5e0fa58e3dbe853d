from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from securesystemslib.formats import encode_canonical

from kgate_core import tuf
from kgate_core.errors import InvalidInput, TrustError
from kgate_core.keys import Algorithm, PublicKey
from kgate_core.tuf import Metadata, Role, Root, canonical, check_listed, key_to_json, parse_keys
from kgate_signer.keys import FileKey
from tests.steady import STEADY
from tests.trustkit import NOW, make_trust
from tests.unit.core.test_strictjson import values

KIT = make_trust()
P256, ED25519 = (FileKey.generate(algorithm).public_key() for algorithm in Algorithm)


def edited(data: bytes, *path: str | int, value: Any) -> bytes:
    """Return a JSON document with one value replaced; its signature is what it was."""
    document = json.loads(data)
    place = document
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    return json.dumps(document).encode()


@STEADY
@given(values)
def test_canonical_bytes_are_those_of_the_reference_implementation(value: Any) -> None:
    assert canonical(value).decode() == encode_canonical(value)


def test_what_has_no_canonical_form_is_refused() -> None:
    with pytest.raises(InvalidInput, match="float cannot"):
        canonical({"a": [1.5]})


@pytest.mark.parametrize("key", [P256, ED25519])
def test_a_key_is_read_back_as_it_was_written(key: PublicKey) -> None:
    assert parse_keys({"id": key_to_json(key)}, what="x") == {"id": key}


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"a": key_to_json(P256), "b": key_to_json(P256)}, "one key stands under two ids"),
        ({"a": key_to_json(P256) | {"scheme": "ed25519"}}, "ecdsa with ed25519 is not supported"),
        ({"a": key_to_json(P256) | {"keytype": "rsa"}}, "rsa with"),
        ({"a": key_to_json(P256) | {"keyval": {"public": ED25519.pem}}}, "holds ed25519"),
        ({"a": key_to_json(P256) | {"keyval": {"public": "zz"}}}, "not a PEM"),
        ({"a": key_to_json(ED25519) | {"keyval": {"public": "zz"}}}, "not hex"),
        ({"a": key_to_json(ED25519) | {"keyval": {"public": "00"}}}, "not an Ed25519"),
        ({"a": key_to_json(ED25519) | {"keyval": {}}}, "'public' is missing"),
        ({"a": 1}, "expected an object"),
    ],
)
def test_unsound_key_tables_are_refused(table: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        parse_keys(table, what="x")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"keyids": [], "threshold": 1}, "threshold 1 with 0 keys"),
        ({"keyids": ["a"], "threshold": 0}, "threshold 0"),
        ({"keyids": ["a"], "threshold": 2}, "threshold 2 with 1"),
        ({"keyids": ["a", "a"], "threshold": 2}, "stands twice"),
        ({"keyids": ["a"], "threshold": True}, "should be int"),
    ],
)
def test_a_role_that_nobody_or_anybody_fulfils_is_refused(data: Any, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        Role.from_json(data, what="x")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (edited(KIT.pinned, "signed", "_type", value="targets"), "it is a 'targets' document"),
        (edited(KIT.pinned, "signed", "spec_version", value="2.0"), "TUF version 2.0"),
        (edited(KIT.pinned, "signed", "version", value=0), "version 0"),
        (edited(KIT.pinned, "signed", "expires", value="soon"), "not a time"),
        (edited(KIT.pinned, "signatures", 0, "sig", value="zz"), "not hex"),
        (
            edited(KIT.pinned, "signatures", value=json.loads(KIT.pinned)["signatures"] * 2),
            "signed twice",
        ),
        (edited(KIT.pinned, "signatures", 0, value=1), "expected an object"),
        (b" " * (tuf.MAX_METADATA + 1), "more than the 512000 allowed"),
        (edited(KIT.pinned, "signed", "roles", "snapshot", value=None), "should be dict"),
    ],
)
def test_malformed_roots_are_refused(data: bytes, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        Root.pinned(data)


def test_even_a_pinned_root_must_have_signed_itself() -> None:
    assert Root.pinned(KIT.pinned).metadata.version == 1
    with pytest.raises(TrustError, match="0 valid signatures of the 1"):
        Root.pinned(edited(KIT.pinned, "signed", "version", value=2))
    with pytest.raises(TrustError, match="0 valid signatures"):
        Root.pinned(edited(KIT.pinned, "signatures", value=[]))


def test_a_signature_by_a_key_outside_the_role_counts_for_nothing() -> None:
    root = Root.pinned(KIT.pinned)
    with pytest.raises(TrustError, match=r"timestamp\.json version 1 has 0 valid"):
        Root(root.metadata, root.keys, {**root.roles, "timestamp": root.roles["root"]}).accept(
            KIT.trust.timestamp, "timestamp"
        )
    # A role may name a key that the document does not carry: it cannot sign.
    with pytest.raises(TrustError, match="0 valid"):
        root.metadata.check_signed_by(root.roles["root"], {})


def test_expiry_counts_from_its_very_second() -> None:
    metadata = Metadata.parse(KIT.trust.timestamp, "timestamp")
    metadata.check_not_expired(metadata.expires - timedelta(seconds=1))
    with pytest.raises(TrustError, match=r"timestamp\.json version 1 expired at 2026-11-22"):
        metadata.check_not_expired(metadata.expires)


def test_a_listing_names_exactly_one_version() -> None:
    snapshot = Metadata.parse(KIT.trust.snapshot, "snapshot")
    targets = Metadata.parse(KIT.trust.targets, "targets")
    check_listed(snapshot, "targets.json", targets)
    newer = Metadata.parse(edited(KIT.trust.targets, "signed", "version", value=2), "targets")
    with pytest.raises(TrustError, match=r"snapshot\.json names targets\.json version 1, found 2"):
        check_listed(snapshot, "targets.json", newer)
    with pytest.raises(InvalidInput, match=r"'other\.json' is missing"):
        check_listed(snapshot, "other.json", targets)


def test_times_of_the_kit_are_those_of_the_tests() -> None:
    assert Metadata.parse(KIT.trust.timestamp, "timestamp").expires == NOW + timedelta(days=1)
