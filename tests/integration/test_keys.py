"""The drills of the runbook: rotate a key, revoke a key, roll the root; each by its commands."""

from __future__ import annotations

import json
import stat
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from kgate_core.trust import TrustedRoot, load
from kgate_core.verify import Expected, Reason, Rejected, Verdict, Verified, verify
from kgate_mirror_server.trust.files import read_trust
from kgate_signer.keys import FileKey
from tests.sitekit import CONNECTED, REPO, VARIANT, Site, built_kernels, time_now
from tests.tsakit import LocalAuthority

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def site(tmp_path: Path, cache: Path) -> Site:
    made = Site.found(tmp_path / "site", CONNECTED, kernels=built_kernels(cache))
    made.sync()
    return made


@pytest.fixture
def pinned(site: Site) -> bytes:
    """The root as pods pinned it before anything happened."""
    return site.root.read_bytes()


def seen_by_pod(site: Site, pinned: bytes) -> TrustedRoot:
    return load(pinned, read_trust(site.root.parent).since(1), now=time_now())


def verdict(site: Site, trusted: TrustedRoot, now: datetime) -> Verdict:
    mirror = site.mirror()
    try:
        (publication,) = site.publications()
        (item,) = publication.variants
        bundles = [mirror.room.read(digest) for digest in item.bundles]
        manifest = mirror.room.manifest(item.evidence)
        expected = Expected(VARIANT, publication.lane, publication.repo, publication.served)
        return verify(expected, manifest, bundles, trusted, now=now)
    finally:
        mirror.close()


def reason(found: Verdict) -> Reason:
    assert isinstance(found, Rejected)
    return found.reason


def keys(site: Site, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Return the listed keys by what they are for."""
    capsys.readouterr()
    assert site.kgate("keys", "list", "--json") == 0
    listed = json.loads(capsys.readouterr().out)["keys"]
    return {f"{key['keyid']} {' '.join(key['roles'])}": key for key in listed}


def id_of(site: Site, name: str) -> str:
    pem = (site.folder / "keys" / f"{name}.pem").read_bytes()
    return FileKey.from_pem(pem, None).public_key().keyid


def test_rotating_leaves_a_time_in_which_both_keys_count(site: Site, pinned: bytes) -> None:
    old = id_of(site, "admit")
    assert site.kgate("keys", "rotate", "admit", "--overlap", "7") == 0
    new = id_of(site, "admit")
    assert old != new
    assert id_of(site, f"admit.{old[:8]}") == old
    for path in (site.folder / "keys").glob("admit*.pem"):
        wanted = 0o644 if path.name.endswith(".pub.pem") else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == wanted
    # What the old key signed counts for the overlap and no longer; the mirror still vouches then.
    trusted = seen_by_pod(site, pinned)
    assert isinstance(verdict(site, trusted, time_now()), Verified)
    (key,) = [key for key in trusted.keys.values() if key.public.keyid == old]
    assert key.valid_until - datetime.now(UTC) < timedelta(days=7)
    site.add_file("more.py", b"MORE = 1\n")
    assert site.sync().approved == 1


def test_resigning_frees_everything_published_from_the_old_key(site: Site, pinned: bytes) -> None:
    assert site.kgate("keys", "rotate", "admit", "--overlap", "0", "--resign") == 0
    found = verdict(site, seen_by_pod(site, pinned), time_now())
    assert isinstance(found, Verified)
    new = id_of(site, "admit")
    assert len(found.signers) == 1
    assert site.kgate("verify", REPO) == 0
    trusted = seen_by_pod(site, pinned)
    (hint,) = [h for h, key in trusted.keys.items() if key.public.keyid == new]
    assert found.signers == (f"admit:{hint}",)


def test_without_resigning_an_overlap_of_nothing_voids_what_was_signed(
    site: Site, pinned: bytes
) -> None:
    assert site.kgate("keys", "rotate", "admit", "--overlap", "0") == 0
    assert reason(verdict(site, seen_by_pod(site, pinned), time_now())) is Reason.EXPIRED


def test_a_stolen_key_is_replaced_and_revoked_and_pods_go_on(site: Site, pinned: bytes) -> None:
    stolen = id_of(site, "admit")
    assert site.kgate("keys", "rotate", "admit", "--overlap", "0", "--resign") == 0
    assert site.kgate("keys", "revoke", stolen[:16], "--reason", "laptop stolen") == 0
    trusted = seen_by_pod(site, pinned)
    assert trusted.revoked_keys[stolen].reason == "laptop stolen"
    assert isinstance(verdict(site, trusted, time_now()), Verified)


def test_revoking_first_stops_everything_and_rotating_is_the_way_back(
    site: Site, pinned: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    stolen = id_of(site, "admit")
    assert site.kgate("keys", "revoke", stolen[:16], "--reason", "laptop stolen") == 0
    assert reason(verdict(site, seen_by_pod(site, pinned), time_now())) is Reason.REVOKED_KEY
    assert site.kgate("keys", "revoke", stolen[:16], "--reason", "again") == 1
    assert "is revoked already" in capsys.readouterr().err
    assert site.kgate("keys", "rotate", "admit", "--resign") == 0
    assert isinstance(verdict(site, seen_by_pod(site, pinned), time_now()), Verified)


@pytest.mark.parametrize("role", ["root", "timestamp"])
def test_pods_follow_a_rolled_root_from_the_one_they_pinned(
    site: Site, pinned: bytes, role: str
) -> None:
    old = id_of(site, role)
    before = seen_by_pod(site, pinned).versions
    assert site.kgate("keys", "rotate", role) == 0
    assert id_of(site, role) != old
    trusted = seen_by_pod(site, pinned)
    assert trusted.versions.root == before.root + 1
    trusted.versions.check_not_older(before)
    assert isinstance(verdict(site, trusted, time_now()), Verified)
    # The new key does its work from now on, and again a second time.
    assert site.kgate("trust", "refresh") == 0
    assert site.kgate("keys", "generate", "bundle", "--no-passphrase") == 0
    assert site.kgate("keys", "rotate", role) == 0
    assert seen_by_pod(site, pinned).versions.root == before.root + 2


def test_the_keys_of_the_root_are_replaced_not_revoked(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    assert site.kgate("keys", "revoke", id_of(site, "root")[:16], "--reason", "x") == 4
    assert "those are replaced, not revoked" in capsys.readouterr().err


def test_the_list_says_what_each_key_is_for(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert site.kgate("keys", "generate", "bundle", "--no-passphrase") == 0
    found = keys(site, capsys)
    assert f"{id_of(site, 'admit')} experimental: admit" in found
    assert f"{id_of(site, 'timestamp')} timestamp" in found
    assert f"{id_of(site, 'bundle')} bundle" in found
    assert f"{id_of(site, 'root')} root snapshot targets" in found
    assert site.kgate("keys", "list") == 0
    assert "experimental: admit" in capsys.readouterr().out


@pytest.mark.parametrize("role", ["ingest", "feed"])
def test_a_role_that_no_lane_asks_for_is_registered_for_pods_and_other_readers(
    site: Site, pinned: bytes, capsys: pytest.CaptureFixture[str], role: str
) -> None:
    assert seen_by_pod(site, pinned).signers(role, time_now()) == {}
    assert site.kgate("keys", "generate", role, "--no-passphrase") == 0
    (public,) = seen_by_pod(site, pinned).signers(role, time_now()).values()
    assert public.keyid == id_of(site, role)
    assert f"{public.keyid} {role}" in keys(site, capsys)
    # Rotated and revoked like every other; a lane's key never stands in for it.
    assert site.kgate("keys", "rotate", role, "--overlap", "0") == 0
    (fresh,) = seen_by_pod(site, pinned).signers(role, time_now()).values()
    assert fresh.keyid != public.keyid
    assert site.kgate("keys", "revoke", fresh.keyid[:16], "--reason", "lost") == 0
    assert seen_by_pod(site, pinned).signers(role, time_now()) == {}


def test_keys_are_never_overwritten_and_a_failed_attempt_leaves_none(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    assert site.kgate("keys", "generate", "admit", "--no-passphrase") == 1
    assert "private keys are never overwritten" in capsys.readouterr().err
    root = site.folder / "keys" / "root.pem"
    hidden = root.rename(root.with_suffix(".away"))
    assert site.kgate("keys", "generate", "approve", "--no-passphrase") == 4
    assert not (site.folder / "keys" / "approve.pem").exists()
    assert site.kgate("keys", "rotate", "admit") == 4
    assert [path.name for path in (site.folder / "keys").glob("admit*")] == ["admit.pem"]
    hidden.rename(root)
    assert site.kgate("keys", "generate", "approve", "--no-passphrase") == 0


def test_a_rotated_key_keeps_its_passphrase(tmp_path: Path) -> None:
    from kgate_mirror_server.trust.founding import Founding, found_site

    secret = tmp_path / "passphrase"
    secret.write_bytes(b"correct horse\n")
    secret.chmod(0o600)
    choice = Founding(f"{tmp_path}/built", CONNECTED, b"correct horse", str(secret))
    found_site(tmp_path / "site", choice, time_now())
    site = Site(tmp_path / "site")
    assert site.kgate("keys", "rotate", "admit") == 0
    pem = (site.folder / "keys" / "admit.pem").read_bytes()
    assert b"ENCRYPTED" in pem
    FileKey.from_pem(pem, b"correct horse")


def test_an_unknown_or_short_id_names_no_key(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("abc", "0" * 16):
        assert site.kgate("keys", "revoke", name, "--reason", "x") == 1
        assert "names no single key" in capsys.readouterr().err


def test_approved_algorithms_refuse_an_ed25519_key(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    assert site.kgate("keys", "generate", "approve", "--no-passphrase", "--ed25519") == 0
    with site.config.open("a", encoding="utf-8") as stream:
        stream.write("approved_algorithms: true\n")
    mirror = site.mirror()
    try:
        mirror.key(mirror.config.keys.admit)
        with pytest.raises(Exception, match="of type ed25519; allowed are ecdsa"):
            mirror.key(mirror.config.keys.approve)
    finally:
        mirror.close()
    assert site.kgate("keys", "generate", "bundle", "--no-passphrase", "--ed25519") == 4
    assert "approved algorithms only" in capsys.readouterr().err


def test_a_dated_decision_outlives_its_key(
    site: Site, pinned: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tsa").mkdir()
    authority = LocalAuthority(tmp_path / "tsa")
    with authority.served() as url:
        with site.config.open("a", encoding="utf-8") as stream:
            stream.write(f"timestamp: {{url: {url}, authority: {tmp_path}/tsa/tsa.pem}}\n")
        assert site.kgate("trust", "update") == 0
        assert f"believes the timestamps of {url}" in capsys.readouterr().out
        assert site.kgate("trust", "update") == 0
        assert "Nothing to change" in capsys.readouterr().out
        site.add_file("more.py", b"MORE = 1\n")
        site.sync()
    assert site.kgate("keys", "rotate", "admit", "--overlap", "1") == 0
    # Two days on, under metadata that is as fresh as today's.
    later = time_now() + timedelta(days=2)
    trusted = seen_by_pod(site, pinned)
    trusted = replace(trusted, issued=later, expires=later + timedelta(days=1))
    mirror = site.mirror()
    try:
        verdicts = {
            publication.version: verify(
                Expected(VARIANT, publication.lane, publication.repo, publication.served),
                mirror.room.manifest(publication.variants[0].evidence),
                [mirror.room.read(digest) for digest in publication.variants[0].bundles],
                trusted,
                now=later,
            )
            for publication in site.publications()
        }
    finally:
        mirror.close()
    # v1 is dated now; what it meant before (reachable by its commit) is not.
    dated = verdicts[1]
    assert isinstance(dated, Verified)
    assert any("not later than" in step.detail for step in dated.steps)
    assert reason(verdicts[None]) is Reason.EXPIRED


def test_an_authority_that_does_not_answer_publishes_nothing(site: Site, tmp_path: Path) -> None:
    (tmp_path / "tsa").mkdir()
    LocalAuthority(tmp_path / "tsa")
    with site.config.open("a", encoding="utf-8") as stream:
        stream.write(
            f"timestamp: {{url: 'http://127.0.0.1:1/', authority: {tmp_path}/tsa/tsa.pem}}\n"
        )
    site.add_file("more.py", b"MORE = 1\n")
    result = site.sync()
    assert len(result.failures) == 1
    assert "did not answer" in result.failures[0].error.message
    assert len(site.publications()) == 1


def test_documents_that_have_run_out_are_named_and_renewed_for_the_pods_that_pinned_them(
    site: Site,
    pinned: bytes,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = seen_by_pod(site, pinned).versions
    later = time_now() + timedelta(days=366)
    for module in ("trust", "verify"):
        monkeypatch.setattr(f"kgate_cli.commands.{module}.now", lambda: later)
    for words in (("trust", "show"), ("verify", REPO)):
        assert site.kgate(*words) == 4
        said = capsys.readouterr().err
        assert "root.json version 1 expired at" in said
        assert "`kgate trust renew` where the root key is" in said
    assert site.kgate("trust", "refresh") == 4
    assert site.kgate("trust", "renew") == 0
    assert "Signed root 2" in capsys.readouterr().out
    renewed = load(pinned, read_trust(site.root.parent).since(1), now=later)
    renewed.versions.check_not_older(before)
    assert renewed.lanes.keys() == {"experimental"}
    assert site.kgate("trust", "show") == 0
