from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from kgate_core import tuf
from kgate_core.digest import Digest
from kgate_core.errors import Conflict, InvalidInput, KgateError, TrustError
from kgate_core.keys import Algorithm
from kgate_core.timestamp import Authority
from kgate_core.trust import Mode, TrustDocuments, Versions, load
from kgate_signer import trustchanges
from kgate_signer.keys import FileKey
from kgate_signer.trustwriter import Offline, RootKeys, TrustSet, change_targets, refresh_timestamp
from tests.trustkit import (
    EXPERIMENTAL,
    NOW,
    POLICY,
    SITE,
    TrustKit,
    lane_of,
    make_trust,
    role_of,
    signing_key,
)

if TYPE_CHECKING:
    from collections.abc import Callable

KIT = make_trust()


def test_loaded_metadata_says_what_was_written() -> None:
    trusted = KIT.trusted()
    admit = KIT.admit.public_key()
    assert (trusted.site, sorted(trusted.lanes)) == (SITE, ["experimental", "production"])
    assert trusted.keys[admit.hint] == signing_key(KIT.admit)
    assert trusted.lanes[EXPERIMENTAL] == lane_of(EXPERIMENTAL, {"admit": role_of(KIT.admit)})
    assert trusted.versions == Versions(1, 1, 1, 1)
    assert (trusted.issued, trusted.expires) == (NOW, NOW + timedelta(days=1))
    assert trusted.age(NOW + timedelta(minutes=3)) == timedelta(minutes=3)
    assert trusted.log_head == ""


def test_modes_are_ordered_by_strictness() -> None:
    assert [mode.strictness for mode in Mode] == [0, 1, 2, 3]
    assert Mode.STRICT.strictness > Mode.OBSERVE.strictness


def test_the_log_head_travels_in_the_timestamp() -> None:
    trust = refresh_timestamp(KIT.trust, KIT.timestamp, now=NOW, log_head="sha256:x")
    assert trust.load(NOW).log_head == "sha256:x"
    assert refresh_timestamp(trust, KIT.timestamp, now=NOW).load(NOW).log_head == "sha256:x"


def test_timestamp_authorities_are_read_if_there_are_any() -> None:
    assert KIT.trusted().authorities == ()
    pem = (
        ec.generate_private_key(ec.SECP384R1())
        .public_key()
        .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    authority = Authority("tsa.test", pem.decode(), NOW, NOW + timedelta(days=1))
    trust = trustchanges.add_authority(KIT.trust, authority, KIT.offline, now=NOW)
    assert KIT.changed(trust).trusted().authorities == (authority,)
    with pytest.raises(Conflict, match=r"tsa\.test is believed already"):
        trustchanges.add_authority(trust, authority, KIT.offline, now=NOW)


def test_revocations_are_read() -> None:
    digest = Digest.of(b"bad")
    trust = trustchanges.revoke_digest(KIT.trust, digest, "CVE-1", KIT.offline, now=NOW)
    keyid = KIT.admit.public_key().keyid
    trust = trustchanges.revoke_key(trust, keyid, "stolen", KIT.offline, now=NOW)
    trusted = KIT.changed(trust).trusted()
    assert trusted.revoked_digests[digest].reason == "CVE-1"
    assert trusted.revoked_keys[keyid].since == NOW


def test_signers_of_a_role_are_those_registered_for_it_in_their_time() -> None:
    key = FileKey.generate()
    entry = replace(signing_key(key), role="feed")
    kit = KIT.changed(trustchanges.add_key(KIT.trust, entry, KIT.offline, now=NOW))
    public = key.public_key()
    trusted = kit.trusted()
    assert trusted.signers("feed", NOW) == {public.hint: public}
    assert trusted.signers("feed", entry.valid_from - timedelta(minutes=5)) != {}
    assert trusted.signers("feed", entry.valid_from - timedelta(minutes=6)) == {}
    assert trusted.signers("feed", entry.valid_until) == {}
    assert trusted.signers("ingest", NOW) == {}
    revoked = trustchanges.revoke_key(kit.trust, public.keyid, "lost", kit.offline, now=NOW)
    assert kit.changed(revoked).trusted().signers("feed", NOW) == {}


def rotated(kit: TrustKit, *, times: int) -> TrustKit:
    """Return the kit after its root key changed this many times."""
    for _ in range(times):
        new = FileKey.generate(Algorithm.ED25519)
        keys = RootKeys((new.public_key(),), (new.public_key(),), (kit.timestamp.public_key(),))
        by = Offline(kit.pinned, (kit.root, new))
        kit = replace(kit, root=new).changed(trustchanges.rotate_root(kit.trust, keys, by, now=NOW))
    return kit


def test_a_pod_follows_rotated_roots_from_whichever_it_pinned() -> None:
    kit = rotated(KIT, times=3)
    for version in (1, 2, 3, 4):
        found = load(kit.trust.roots[version - 1], kit.trust.since(version), now=NOW)
        assert found.versions == Versions(4, 4, 4, 4)


def test_roots_in_the_wrong_order_or_with_a_gap_are_refused() -> None:
    kit = rotated(KIT, times=2)
    one, two, three = kit.trust.roots
    for later in ([three], [three, two], [two, two, three], [one, two, three]):
        with pytest.raises(TrustError, match="cannot follow"):
            load(one, replace(kit.trust.since(1), later_roots=later), now=NOW)


def test_a_root_that_the_old_keys_did_not_sign_is_refused() -> None:
    stranger = make_trust()
    forged = json.loads(rotated(stranger, times=1).trust.roots[1])
    with pytest.raises(TrustError, match=r"root\.json version 2 has 0 valid"):
        load(
            KIT.pinned,
            replace(KIT.trust.since(1), later_roots=[json.dumps(forged).encode()]),
            now=NOW,
        )


def test_a_root_that_its_own_keys_did_not_sign_is_refused() -> None:
    kit = rotated(KIT, times=1)
    root = json.loads(kit.trust.roots[1])
    old = KIT.root.public_key().keyid
    root["signatures"] = [entry for entry in root["signatures"] if entry["keyid"] == old]
    with pytest.raises(TrustError, match="has 0 valid signatures of the 1"):
        load(
            kit.pinned,
            replace(kit.trust.since(1), later_roots=[json.dumps(root).encode()]),
            now=NOW,
        )


def test_endless_root_chains_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    kit = rotated(KIT, times=2)
    monkeypatch.setattr(tuf, "MAX_ROOT_STEPS", 1)
    with pytest.raises(TrustError, match="more than 1 root versions"):
        load(kit.pinned, kit.trust.since(1), now=NOW)


def test_a_threshold_of_two_needs_two_holders() -> None:
    first, second, third = (FileKey.generate() for _ in range(3))
    keys = RootKeys(
        tuple(key.public_key() for key in (first, second, third)),
        tuple(key.public_key() for key in (first, second, third)),
        (KIT.timestamp.public_key(),),
        root_threshold=2,
        targets_threshold=2,
    )
    enough = Offline(KIT.pinned, (KIT.root, first, third))
    kit = KIT.changed(trustchanges.rotate_root(KIT.trust, keys, enough, now=NOW))
    assert kit.trusted().versions.root == 2
    with pytest.raises(TrustError, match="lacks signatures"):
        trustchanges.renew(kit.trust, Offline(kit.pinned, (first,)), now=NOW)
    # One signature fewer in what is served, and a pod refuses too.
    targets = json.loads(kit.trust.targets)
    targets["signatures"].pop()
    short = replace(kit.trust, targets=json.dumps(targets).encode())
    with pytest.raises(TrustError, match="has 1 valid signatures of the 2"):
        short.load(NOW)


@pytest.mark.parametrize("name", ["timestamp", "snapshot", "targets"])
def test_a_changed_document_is_refused(name: str) -> None:
    document = json.loads(getattr(KIT.trust, name))
    document["signed"]["version"] += 1
    files = KIT.trust.files | {f"{name}.json": json.dumps(document).encode()}
    with pytest.raises(TrustError, match=rf"{name}\.json version 2 has 0 valid"):
        TrustSet.from_files(files).load(NOW)


def test_documents_of_different_releases_are_not_mixed() -> None:
    newer = KIT.changed(trustchanges.renew(KIT.trust, KIT.offline, now=NOW)).trust
    for mixed, said in (
        (replace(newer, snapshot=KIT.trust.snapshot), "names snapshot.json version 2, found 1"),
        (replace(newer, targets=KIT.trust.targets), "names targets.json version 2, found 1"),
        (replace(KIT.trust, timestamp=newer.timestamp), "version 2, found 1"),
    ):
        with pytest.raises(TrustError, match=said):
            mixed.load(NOW)


@pytest.mark.parametrize(("days", "name"), [(1, "timestamp"), (180, "snapshot"), (365, "root")])
def test_each_document_expires_by_itself(days: int, name: str) -> None:
    late = NOW + timedelta(days=days)
    trust = KIT.trust
    if name == "root":
        # Keep the others young.
        kit = replace(KIT, now=late - timedelta(seconds=1))
        trust = kit.changed(trustchanges.renew(trust, kit.offline, now=kit.now)).trust
    elif name == "snapshot":
        kit = replace(KIT, now=late - timedelta(seconds=1))
        trust = kit.changed(trust).trust
    with pytest.raises(TrustError, match=rf"{name}\.json version \d+ expired"):
        trust.load(late)


def signed_by(key: FileKey, signed: dict[str, Any]) -> bytes:
    """Return a document whose writer checked nothing."""
    signature = {"keyid": key.public_key().keyid, "sig": key.sign(tuf.canonical(signed)).hex()}
    return json.dumps({"signed": signed, "signatures": [signature]}).encode()


def test_expired_targets_under_a_young_snapshot_are_refused() -> None:
    late = NOW + timedelta(days=180)
    young = replace(KIT, now=late - timedelta(hours=1))
    newer = young.changed(trustchanges.renew(KIT.trust, young.offline, now=young.now)).trust
    snapshot = json.loads(newer.snapshot)["signed"] | {"meta": {"targets.json": {"version": 1}}}
    old = replace(newer, targets=KIT.trust.targets, snapshot=signed_by(KIT.root, snapshot))
    with pytest.raises(TrustError, match=r"targets\.json version 1 expired"):
        old.load(late)


def test_a_document_older_than_one_seen_before_is_refused() -> None:
    seen = KIT.changed(KIT.trust).trusted().versions
    assert seen == Versions(1, 2, 1, 1)
    with pytest.raises(TrustError, match=r"timestamp\.json version 1 is older than version 2"):
        load(KIT.pinned, KIT.trust.since(1), now=NOW, seen=seen)
    same = Versions(1, 1, 1, 1)
    assert load(KIT.pinned, KIT.trust.since(1), now=NOW, seen=same).versions == same
    for name in ("root", "snapshot", "targets"):
        with pytest.raises(TrustError, match=rf"{name}\.json version 1 is older"):
            Versions(1, 1, 1, 1).check_not_older(replace(Versions(1, 1, 1, 1), **{name: 2}))


def test_metadata_from_the_future_is_refused_beyond_the_clock_skew() -> None:
    assert KIT.trust.load(NOW - timedelta(minutes=5)).issued == NOW
    with pytest.raises(TrustError, match="in the future") as caught:
        KIT.trust.load(NOW - timedelta(minutes=5, seconds=1))
    assert "clock" in caught.value.hint


def _own(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda own: own.update({key: value})


def _lane(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda own: own["lanes"][EXPERIMENTAL].update({key: value})


def _rename_key(own: dict[str, Any]) -> None:
    keyid = min(own["keys"])
    own["keys"]["0" * 64] = own["keys"].pop(keyid)


def _two_roles(own: dict[str, Any]) -> None:
    roles = own["lanes"]["production"]["roles"]
    roles["approve"] = roles["admit"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_own("lanes", []), "'lanes' should be dict"),
        (_own("site", 1), "'site' should be str"),
        (_own("revoked", {}), "'keys' is missing"),
        (_own("revoked", {"keys": {}, "digests": {"x": {}}}), "not a digest"),
        (_own("revoked", {"keys": {"x": {}}, "digests": {}}), "'since' is missing"),
        (_rename_key, "does not bear its own id"),
        (_two_roles, "lane production: one key holds two roles"),
        (_lane("roles", {}), "no role is required, so anybody could sign"),
        (_lane("roles", {"admit": {"keyids": ["ab"], "threshold": 1}}), "names the unknown key ab"),
        (_lane("mode", "off"), "unknown mode 'off'; known are observe, warn, enforce, strict"),
        (_lane("softStalenessSeconds", 0), "staleness of 0 s"),
        (_lane("softStalenessSeconds", 10**9), "staleness of 1000000000 s"),
        (_lane("hardStalenessSeconds", 2**53 - 1), "staleness of 300 s"),
        (_lane("origins", ["x"]), "not an upstream origin"),
        (_lane("policies", ["x"]), "not a digest"),
        (_own("timestampAuthorities", {}), "should be list"),
        (_own("timestampAuthorities", [{}]), "'name' is missing"),
    ],
)
def test_unsound_floors_are_refused_even_when_signed(
    change: Callable[[dict[str, Any]], None], said: str
) -> None:
    trust = change_targets(KIT.trust, change, KIT.offline, now=NOW)
    # Signed by the right keys all the same: read as a pod would, which never asks the writer.
    with pytest.raises(InvalidInput, match=said):
        load(KIT.pinned, vouched(trust), now=NOW)


def vouched(trust: TrustSet) -> TrustDocuments:
    """Return documents under a timestamp that was signed without reading them back."""
    signed = json.loads(trust.timestamp)["signed"]
    signed["meta"]["snapshot.json"]["version"] = json.loads(trust.snapshot)["signed"]["version"]
    return replace(trust.since(1), timestamp=signed_by(KIT.timestamp, signed))


def test_the_writer_refuses_what_a_pod_would_refuse() -> None:
    trust = change_targets(KIT.trust, _lane("mode", "off"), KIT.offline, now=NOW)
    with pytest.raises(KgateError, match="unknown mode"):
        refresh_timestamp(trust, KIT.timestamp, now=NOW)
    assert POLICY in KIT.trusted().lanes[EXPERIMENTAL].policies
