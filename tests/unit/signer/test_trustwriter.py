from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from kgate_core.digest import Digest
from kgate_core.errors import Conflict, InvalidInput, KgateError, NotFound, TrustError
from kgate_core.keys import Algorithm
from kgate_core.tuf import Role
from kgate_signer import trustchanges
from kgate_signer.keys import FileKey
from kgate_signer.trustfields import lane_to_json
from kgate_signer.trustwriter import (
    Offline,
    RootKeys,
    TrustSet,
    create,
    refresh_timestamp,
)
from tests.trustkit import (
    EXPERIMENTAL,
    NOW,
    ORIGIN,
    POLICY,
    lane_of,
    make_trust,
    role_of,
    signing_key,
)

KIT = make_trust()
KEYID = KIT.admit.public_key().keyid


def test_documents_are_kept_and_read_back_by_file_name() -> None:
    files = KIT.trust.files
    assert sorted(files) == ["1.root.json", "snapshot.json", "targets.json", "timestamp.json"]
    assert TrustSet.from_files(files) == KIT.trust
    for name in files:
        with pytest.raises(TrustError, match=f"{name} is missing"):
            TrustSet.from_files({key: data for key, data in files.items() if key != name})
    twelve = replace(KIT.trust, roots=tuple(b"%d" % number for number in range(1, 13)))
    assert TrustSet.from_files(twelve.files).roots == twelve.roots
    gap = twelve.files
    del gap["7.root.json"]
    with pytest.raises(TrustError, match=r"7\.root\.json is missing"):
        TrustSet.from_files(gap)


def test_a_timestamp_lives_as_long_as_the_most_patient_lane() -> None:
    island = lane_of("island", {"admit": role_of(KIT.admit)}, hard_staleness=timedelta(days=30))
    trust = trustchanges.set_lane(KIT.trust, island, KIT.offline, now=NOW)
    trust = refresh_timestamp(trust, KIT.timestamp, now=NOW)
    assert trust.load(NOW).expires == NOW + timedelta(days=30)


def test_a_change_counts_only_after_a_new_timestamp() -> None:
    changed = trustchanges.add_origin(
        KIT.trust, EXPERIMENTAL, "https://other.test", KIT.offline, now=NOW
    )
    with pytest.raises(TrustError, match=r"names snapshot\.json version 1, found 2"):
        changed.load(NOW)
    lane = KIT.changed(changed).trusted().lanes[EXPERIMENTAL]
    assert lane.origins == {ORIGIN, "https://other.test"}
    # What was there before is what it was.
    assert KIT.trusted().lanes[EXPERIMENTAL].origins == {ORIGIN}


def test_policies_are_allowed_and_disallowed() -> None:
    other = Digest.of(b"the next policy")
    added = trustchanges.add_policy(KIT.trust, EXPERIMENTAL, other, KIT.offline, now=NOW)
    assert KIT.changed(added).trusted().lanes[EXPERIMENTAL].policies == {POLICY, other}
    removed = trustchanges.remove_policy(added, EXPERIMENTAL, POLICY, KIT.offline, now=NOW)
    assert KIT.changed(removed).trusted().lanes[EXPERIMENTAL].policies == {other}
    with pytest.raises(Conflict, match=r"has .* already"):
        trustchanges.add_policy(added, EXPERIMENTAL, other, KIT.offline, now=NOW)
    with pytest.raises(NotFound, match="does not allow the policy"):
        trustchanges.remove_policy(removed, EXPERIMENTAL, POLICY, KIT.offline, now=NOW)
    with pytest.raises(NotFound, match=r"no lane 'x'; there are \['experimental', 'production'\]"):
        trustchanges.add_policy(KIT.trust, "x", other, KIT.offline, now=NOW)


def test_keys_are_added_and_given_a_role() -> None:
    key = FileKey.generate(Algorithm.ED25519)
    lane = lane_of("second", {"admit": role_of(key)})
    with pytest.raises(NotFound, match="names the unknown key"):
        trustchanges.set_lane(KIT.trust, lane, KIT.offline, now=NOW)
    trust = trustchanges.add_key(KIT.trust, signing_key(key), KIT.offline, now=NOW)
    trust = trustchanges.set_lane(trust, lane, KIT.offline, now=NOW)
    assert KIT.changed(trust).trusted().lanes["second"] == lane
    with pytest.raises(Conflict, match="is known already"):
        trustchanges.add_key(trust, signing_key(key), KIT.offline, now=NOW)


def test_revocations_are_written_once_and_only_those_of_bytes_are_taken_back() -> None:
    digest = Digest.of(b"bad")
    by = KIT.offline
    trust = trustchanges.revoke_digest(KIT.trust, digest, "CVE-1", by, now=NOW)
    trust = trustchanges.revoke_key(trust, KEYID, "lost", by, now=NOW)
    found = KIT.changed(trust).trusted()
    assert (found.revoked_digests[digest].since, found.revoked_keys[KEYID].reason) == (NOW, "lost")
    with pytest.raises(Conflict, match="since 2026-11-21T12:00:00Z"):
        trustchanges.revoke_digest(trust, digest, "again", by, now=NOW + timedelta(days=1))
    with pytest.raises(Conflict, match="is revoked already"):
        trustchanges.revoke_key(trust, KEYID, "again", by, now=NOW)
    with pytest.raises(NotFound, match="no signing key ffff"):
        trustchanges.revoke_key(trust, "ffff", "x", by, now=NOW)
    trust = trustchanges.reinstate_digest(trust, digest, by, now=NOW)
    assert digest not in KIT.changed(trust).trusted().revoked_digests
    with pytest.raises(NotFound, match="is not revoked"):
        trustchanges.reinstate_digest(trust, digest, by, now=NOW)


def test_a_reason_and_an_origin_must_say_something() -> None:
    for reason in ("", "  "):
        with pytest.raises(InvalidInput, match="needs a reason"):
            trustchanges.revoke_digest(KIT.trust, POLICY, reason, KIT.offline, now=NOW)
    with pytest.raises(InvalidInput, match="not an upstream origin"):
        trustchanges.add_origin(KIT.trust, EXPERIMENTAL, "hub", KIT.offline, now=NOW)


def test_renewing_moves_the_expiry_and_nothing_else() -> None:
    later = replace(KIT, now=NOW + timedelta(days=170))
    renewed = later.changed(trustchanges.renew(KIT.trust, KIT.offline, now=later.now))
    assert renewed.trusted().lanes == KIT.trusted().lanes
    late = replace(renewed, now=NOW + timedelta(days=300))
    assert late.changed(renewed.trust).trusted().versions.targets == 2


def test_the_wrong_keys_sign_nothing() -> None:
    for wrong in (KIT.timestamp, KIT.admit, FileKey.generate()):
        with pytest.raises(TrustError, match=r"targets\.json version 2 lacks signatures") as caught:
            trustchanges.renew(KIT.trust, Offline(KIT.pinned, (wrong,)), now=NOW)
        assert "role 'targets'" in caught.value.hint
    with pytest.raises(TrustError, match=r"timestamp\.json version 2 lacks signatures"):
        refresh_timestamp(KIT.trust, KIT.root, now=NOW)


@pytest.mark.parametrize(("root", "targets"), [(0, 1), (2, 1), (1, 0), (1, 2)])
def test_thresholds_that_nobody_can_reach_are_refused(root: int, targets: int) -> None:
    public = KIT.root.public_key()
    keys = RootKeys((public,), (public,), (KIT.timestamp.public_key(),), root, targets)
    with pytest.raises(InvalidInput, match="can never agree"):
        create("s", (), (), keys, offline=(KIT.root,), timestamp=KIT.timestamp, now=NOW)
    with pytest.raises(InvalidInput, match="2 of 1 keys can never agree"):
        lane_to_json(lane_of("x", {"admit": Role(frozenset({KEYID}), 2)}))


def test_nobody_slips_something_under_a_persons_signature() -> None:
    # An attacker on the mirror edits what is stored and waits for the next honest change.
    edited = json.loads(KIT.trust.targets)
    edited["signed"]["kgate"]["lanes"][EXPERIMENTAL]["mode"] = "observe"
    poisoned = replace(KIT.trust, targets=json.dumps(edited).encode())
    with pytest.raises(TrustError, match=r"targets\.json version 1 has 0 valid"):
        trustchanges.renew(poisoned, KIT.offline, now=NOW)
    # Or replaces everything by a site whose targets the attacker may sign too.
    attacker = FileKey.generate()
    publics = (KIT.root.public_key(), attacker.public_key())
    theirs = create(
        "kgate.test",
        (lane_of(EXPERIMENTAL, {"admit": role_of(attacker)}),),
        (signing_key(attacker),),
        RootKeys(publics, publics, (attacker.public_key(),)),
        offline=(attacker,),
        timestamp=attacker,
        now=NOW,
    )
    with pytest.raises(TrustError, match="root version 1 is not the pinned one"):
        trustchanges.renew(theirs, KIT.offline, now=NOW)
    keys = RootKeys(publics, publics, publics)
    with pytest.raises(TrustError, match="not the pinned one"):
        trustchanges.rotate_root(theirs, keys, KIT.offline, now=NOW)


def test_whoever_pinned_a_later_root_can_go_on_from_there() -> None:
    new = FileKey.generate()
    keys = RootKeys((new.public_key(),), (new.public_key(),), (KIT.timestamp.public_key(),))
    by = Offline(KIT.pinned, (KIT.root, new))
    kit = KIT.changed(trustchanges.rotate_root(KIT.trust, keys, by, now=NOW))
    again = trustchanges.renew(kit.trust, Offline(kit.trust.roots[1], (new,)), now=NOW)
    assert kit.changed(again).trusted().versions.targets == 3
    # The old key is worth nothing any more.
    with pytest.raises(TrustError, match="lacks signatures"):
        trustchanges.renew(kit.trust, Offline(kit.trust.roots[1], (KIT.root,)), now=NOW)


def test_the_timestamp_key_is_rotated_with_the_root() -> None:
    new = FileKey.generate()
    root = KIT.root.public_key()
    keys = RootKeys((root,), (root,), (new.public_key(),))
    trust = trustchanges.rotate_root(KIT.trust, keys, KIT.offline, now=NOW)
    with pytest.raises(TrustError, match="lacks signatures"):
        refresh_timestamp(trust, KIT.timestamp, now=NOW)
    trust = refresh_timestamp(trust, new, now=NOW)
    assert trust.load(NOW).versions.root == 2


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("timestamp.json", b"{}"),
        ("timestamp.json", KIT.trust.snapshot),
        ("targets.json", b"\xff"),
        ("snapshot.json", b""),
        ("1.root.json", b"[]"),
        ("timestamp.json", KIT.trust.timestamp.replace(b'"kgate"', b'"other"')),
        ("targets.json", KIT.trust.targets.replace(b'"kgate"', b'"other"')),
    ],
)
def test_damaged_documents_are_refused_before_anything_is_signed(name: str, data: bytes) -> None:
    damaged = TrustSet.from_files(KIT.trust.files | {name: data})
    with pytest.raises(KgateError):
        refresh_timestamp(damaged, KIT.timestamp, now=NOW)
