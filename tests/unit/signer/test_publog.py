from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from kgate_core import strictjson
from kgate_core.bundle import Bundle
from kgate_core.digest import Digest
from kgate_core.errors import IntegrityError, InvalidInput
from kgate_core.kernel import Revision
from kgate_core.statement import Statement
from kgate_signer.keys import FileKey
from kgate_signer.publog import EMPTY, Entry, Published, append, head_of, read_log
from kgate_signer.sign import sign_statement
from tests.trustkit import EXPERIMENTAL, KERNEL, NOW, make_trust, manifest_of

KIT = make_trust()
KEYS = {KIT.admit.public_key().hint: KIT.admit.public_key()}
FIRST = Published(
    KERNEL.origin,
    KERNEL.repo_type,
    KERNEL.repo,
    KERNEL.revision,
    Revision("c" * 40),
    1,
    EXPERIMENTAL,
    {"torch-cpu": manifest_of().digest, "torch-cuda": Digest.of(b"x")},
    NOW,
)


def log(*published: Published, key: FileKey = KIT.admit) -> list[bytes]:
    bundles: list[bytes] = []
    for item in published:
        bundles.append(append(bundles[-1] if bundles else None, item, key))
    return bundles


THREE = log(FIRST, replace(FIRST, served=Revision("d" * 40)), replace(FIRST, version=None))


def test_a_log_is_read_back_in_order_up_to_its_head() -> None:
    entries = read_log(THREE, head_of(THREE[-1]), KEYS)
    assert [entry.sequence for entry in entries] == [1, 2, 3]
    assert entries[0] == Entry(1, EMPTY, FIRST)
    assert entries[2].published.version is None
    assert read_log([], EMPTY, KEYS) == ()
    assert head_of(None) == EMPTY


def test_the_head_is_of_what_was_said_and_not_of_who_signed() -> None:
    # Signing again with another key, as after a theft, keeps the log what it was.
    other = FileKey.generate()
    again = log(FIRST, key=other)
    assert again[0] != THREE[0]
    assert head_of(again[0]) == head_of(THREE[0])


@pytest.mark.parametrize(
    ("bundles", "said"),
    [
        (THREE[:2], "ends at sha256:"),
        ([], "ends at nothing"),
        (THREE[1:], "entry 1 of the publication log says it is number 2"),
        ([THREE[0], THREE[2]], "entry 2 of the publication log says it is number 3"),
        ([THREE[0], THREE[0]], "entry 2 of the publication log says it is number 1"),
        ([*THREE, THREE[2]], "entry 4"),
        (log(FIRST, key=FileKey.generate()), "entry 1 .* is not signed by a key of this site"),
        ([b"{}"], "entry 1 .* cannot be read"),
        ([KIT.bundle(manifest_of())], "it is a https://slsa.dev"),
    ],
)
def test_a_log_with_something_missing_moved_or_forged_is_refused(
    bundles: list[bytes], said: str
) -> None:
    with pytest.raises(IntegrityError, match=said):
        read_log(bundles, head_of(THREE[-1]), KEYS)


def test_two_histories_with_one_length_have_two_heads() -> None:
    # A mirror that shows pods different histories cannot show them one head.
    other = log(FIRST, replace(FIRST, served=Revision("e" * 40)))
    assert head_of(other[-1]) != head_of(THREE[1])
    with pytest.raises(IntegrityError, match="its signed head is"):
        read_log(other, head_of(THREE[1]), KEYS)
    # And an entry of one does not continue the other.
    with pytest.raises(IntegrityError, match="entry 3"):
        read_log([*other, THREE[2]], head_of(THREE[2]), KEYS)


def test_a_changed_entry_is_not_signed_any_more() -> None:
    bundle = Bundle.parse(THREE[0])
    payload = bundle.envelope.payload.replace(b"experimental", b"production")
    changed = replace(bundle, envelope=replace(bundle.envelope, payload=payload))
    with pytest.raises(IntegrityError, match="is not signed"):
        read_log([changed.to_bytes()], head_of(THREE[0]), KEYS)


@pytest.mark.parametrize(
    "changes",
    [
        {"repoType": "dataset"},
        {"version": "1"},
        {"version": True},
        {"sequence": "1"},
        {"origin": "x"},
        {"servedRevision": "main"},
        {"publishedAt": "today"},
    ],
)
def test_a_malformed_entry_is_refused_even_if_signed(changes: dict[str, Any]) -> None:
    good = Entry(1, EMPTY, FIRST).to_statement()
    document = strictjson.loads(good.data, what="x")
    document["predicate"] |= changes
    statement = Statement.parse(strictjson.dumps(document))
    with pytest.raises(InvalidInput):
        Entry.from_statement(statement)
    signed = sign_statement(statement, KIT.admit)
    with pytest.raises(IntegrityError, match="cannot be read"):
        read_log([signed], head_of(signed), KEYS)
